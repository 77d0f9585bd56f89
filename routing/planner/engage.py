"""Decision whether a request is planned, from tokens, sizes and prices, without a call. Pure."""

from enum import Enum
from typing import NamedTuple

from codexflow.catalogue.schema import PlannerConfig
from codexflow.lib.money import format_usd

# What the row keeps of a decision against a plan.
NOT_WORTH_IT = "not-worth-it"


class Mode(Enum):
    """Wish of the caller, by `x-decompose`."""

    AUTO = "auto"
    ON = "1"
    OFF = "0"
    DRY_RUN = "dry-run"


class Quality(Enum):
    """Model of the parts, by `x-quality`: as the plan says, or one of both for all of them."""

    AUTO = "auto"
    FAST = "fast"
    DEEP = "deep"


_MODES = {
    "": Mode.AUTO, "auto": Mode.AUTO,
    "1": Mode.ON, "true": Mode.ON, "yes": Mode.ON, "on": Mode.ON,
    "0": Mode.OFF, "false": Mode.OFF, "no": Mode.OFF, "off": Mode.OFF,
    "dry-run": Mode.DRY_RUN,
}  # fmt: skip


def mode_of(header: str) -> Mode | None:
    """Read `x-decompose`; None for a value that has no meaning."""
    return _MODES.get(header.strip().lower())


def quality_of(header: str) -> Quality | None:
    """Read `x-quality`; None for a value that has no meaning."""
    try:
        return Quality(header.strip().lower() or "auto")
    except ValueError:
        return None


class Facts(NamedTuple):
    """A request as the decision sees it. Tokens, and nano-USD as expected."""

    input_tokens: int
    asked_tokens: int | None  # output as asked for, before any cap; None: not said
    one_pass_tokens: int  # output that one call gives at most
    one_pass_nanos: int
    planned_nanos: int
    unsuitable: str = ""  # why such a request is never planned


class Decision(NamedTuple):
    """`reason` is for header and row; `is_planned` engages the planner."""

    is_planned: bool
    reason: str
    header: str


NOTHING_TO_DECIDE = Decision(is_planned=False, reason="", header="")


def is_large(config: PlannerConfig, *, input_tokens: int, asked_tokens: int | None) -> bool:
    """Return whether a request is so large that a plan is considered unasked."""
    return input_tokens > config.large_request_tokens or (asked_tokens or 0) > config.max_tokens_threshold


def decide(config: PlannerConfig, mode: Mode, facts: Facts) -> Decision:
    """Decide for a request whose caller may plan.

    Unasked, only where one call cannot give what is asked and the parts can, or where they are expected to cost no
    more. Asked for, wherever the parts give more than one call or cost no more: less for more money helps nobody.
    """
    if mode is Mode.OFF:
        return NOTHING_TO_DECIDE
    if mode is Mode.AUTO and not (
        config.auto_enable and is_large(config, input_tokens=facts.input_tokens, asked_tokens=facts.asked_tokens)
    ):
        return NOTHING_TO_DECIDE
    if facts.unsuitable:
        return _one_pass(facts.unsuitable) if mode is not Mode.AUTO else NOTHING_TO_DECIDE
    capacity = config.max_chunks * config.max_chunk_tokens
    asked = facts.asked_tokens or 0
    is_cheaper = facts.planned_nanos <= facts.one_pass_nanos
    if mode is not Mode.AUTO:
        if capacity <= facts.one_pass_tokens and not is_cheaper:
            return _one_pass("no-longer-than-one-pass")
        return _planned("asked")
    if facts.one_pass_tokens < asked <= capacity:
        return _planned("longer-than-one-pass")
    if is_cheaper:
        return _planned("cheaper")
    header = (
        f"{NOT_WORTH_IT}; planned-usd={format_usd(facts.planned_nanos)};"
        f" one-pass-usd={format_usd(facts.one_pass_nanos)}"
    )
    return Decision(is_planned=False, reason=NOT_WORTH_IT, header=header)


def _planned(reason: str) -> Decision:
    return Decision(is_planned=True, reason=reason, header=f"planned; reason={reason}")


def _one_pass(reason: str) -> Decision:
    return Decision(is_planned=False, reason=reason, header=f"one-pass; reason={reason}")
