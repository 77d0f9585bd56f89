"""Starting points of the form that creates a key: what keys for one purpose usually have. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from keys.policy import MANAGEMENT

_CHATS = ("chat", "completions", "responses", "messages")


@dataclass(frozen=True, slots=True)
class Preset:
    """Values of fields of the form, by their names. A list of names is a choice among those that the form offers."""

    label: Promise
    values: Mapping[str, Any]


PRESETS = (
    Preset(
        _("Coding agent"),
        {"expires_in_days": "365", "day_budget_usd": 25, "allowed_surfaces": _CHATS},
    ),
    Preset(
        _("CI"),
        {
            "expires_in_days": "90", "rpm": 30, "concurrent_streams": 2, "day_budget_usd": 5,
            "allowed_stages": ("code", "review"), "allowed_surfaces": _CHATS,
        },
    ),
    Preset(
        _("Short trial"),
        {"expires_in_days": "7", "rpm": 10, "concurrent_streams": 1, "day_budget_usd": 1, "allowed_surfaces": _CHATS},
    ),
    # A key with a limit of its own can change no other key.
    Preset(_("Reports, no model calls"), {"expires_in_days": "365", "rpm": 60, "allowed_surfaces": (MANAGEMENT,)}),
)  # fmt: skip


def fitted(
    preset: Preset, *, offered: Mapping[str, Sequence[str]], most: Callable[[str], int | None]
) -> dict[str, Any] | None:
    """Return the preset's values within what the form allows; None where it offers none of a preset's names."""
    values: dict[str, Any] = {}
    for field, value in preset.values.items():
        if field in offered:
            values[field] = [name for name in value if name in offered[field]]
            if not values[field]:  # an empty list would allow all
                return None
        elif isinstance(value, int):
            limit = most(field)
            if limit != 0:
                values[field] = value if limit is None else min(value, limit)
        else:
            values[field] = value
    return values
