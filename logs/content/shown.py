"""A conversation as templates show it: texts as HTML, images that a page may draw."""

import re
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from logs.content.conversation import Part, conversation_of
from logs.content.markdown import render_text

ROLES: dict[str, Promise] = {
    "system": _("System"),
    "user": _("User"),
    "assistant": _("Assistant"),
    "tool": _("Tool"),
    "error": _("Error"),
}
# Of all texts of a conversation; what comes after is shown as it is.
MAX_RENDERED = 120_000
_DRAWABLE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+")


@dataclass(frozen=True, slots=True)
class ShownPart:
    """A part, with its text as HTML where it is one that people read."""

    part: Part
    html: SafeString | None = None

    @property
    def image(self) -> str:
        """Data URL of an image that browsers draw; empty for any other."""
        return self.part.data if _DRAWABLE.fullmatch(self.part.data) else ""


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """A turn, with the name of its role in the reader's language."""

    role: str
    label: Promise | str
    parts: list[ShownPart]


def shown_turns(request: str, response: str) -> list[ShownTurn]:
    """Return the conversation; empty where texts are not understood."""
    left, found = MAX_RENDERED, []
    for turn in conversation_of(request, response):
        parts = []
        for part in turn.parts:
            is_read = part.kind in ("text", "reasoning") and len(part.text) <= left
            left -= len(part.text) if is_read else 0
            parts.append(ShownPart(part, render_text(part.text) if is_read else None))
        found.append(ShownTurn(turn.role, ROLES.get(turn.role, turn.role), parts))
    return found
