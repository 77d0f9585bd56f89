"""Ends of models: which models of a catalogue leave their provider soon, and what uses them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from typing_extensions import override

from codexflow.catalogue.lineup import Lineup
from codexflow.catalogue.schema import STAGES, Catalogue

NOTICE_DAYS = 60
LAST_NOTICE_DAYS = 14
OVER = "over"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of one model that the catalogue names. `level` is its notice: 60 or 14 days before, or `over`."""

    model: str
    last_day: date
    days_left: int  # 0 on its last day
    level: str
    used_by: tuple[str, ...]
    successor: str | None
    is_replaced: bool  # the successor serves calls for it already
    is_covered: bool  # a successor takes over that does not end within the notice itself

    @override
    def __str__(self) -> str:
        when = f"ended on {self.last_day}" if self.level == OVER else f"ends on {self.last_day}"
        left = "" if self.level == OVER else f", in {self.days_left} days"
        if self.is_replaced:
            then = f"{self.successor} serves calls for it"
        elif self.successor:
            then = f"{self.successor} is its successor"
        else:
            then = "it has no successor"
        return f"{self.model} {when}{left}; {then}. Used by: {', '.join(self.used_by)}."

    def facts(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "model": self.model,
            "last_day": self.last_day.isoformat(),
            "days_left": self.days_left,
            "level": self.level,
            "used_by": list(self.used_by),
            "successor": self.successor,
            "is_replaced": self.is_replaced,
        }


def ends_of(lineup: Lineup, today: date, policies: Mapping[str, Sequence[str]] | None = None) -> list[End]:
    """List the models in use that end within the notice or have ended, soonest first.

    Successors that serve for a model in use count as used by the same. `policies`: keys and plans whose allow-list
    names a model, in words.
    """
    catalogue, found = lineup.catalogue, []
    for model, used_by in uses_of(lineup).items():
        last_day = catalogue.entries[model].retires
        if last_day is None or (last_day - today).days > NOTICE_DAYS:
            continue
        days_left = (last_day - today).days
        successor = _heir(model, catalogue)
        found.append(
            End(
                model=model,
                last_day=last_day,
                days_left=days_left,
                level=_level(days_left),
                used_by=(*used_by, *(policies or {}).get(model, ())),
                successor=successor,
                is_replaced=lineup.serving(model) != model,
                is_covered=successor is not None
                and _lasts(successor, catalogue, today)
                and model not in lineup.unlisted,
            )
        )
    return sorted(found, key=lambda end: (end.last_day, end.model))


def _level(days_left: int) -> str:
    if days_left < 0:
        return OVER
    return str(LAST_NOTICE_DAYS if days_left <= LAST_NOTICE_DAYS else NOTICE_DAYS)


def uses_of(lineup: Lineup) -> dict[str, tuple[str, ...]]:
    """Return what uses each model, by model: stages, lists, aliases, the planner."""
    catalogue = lineup.catalogue
    found: dict[str, dict[str, None]] = {}

    def use(model: str, place: str) -> None:
        """Add a place to a model, and to the model that serves for it."""
        for each in (model, lineup.serving(model)):
            found.setdefault(each, {})[place] = None

    for stage in STAGES:
        config = catalogue.stages[stage]
        use(config.model, f"stage {stage}")
        for model in config.fallback:
            use(model, f"fallback of {stage}")
    for model in catalogue.direct.allowed_models:
        use(model, "direct")
    for model in catalogue.direct.fallback:
        use(model, "fallback of direct")
    for pattern, target in catalogue.aliases:
        if target not in STAGES:
            use(target, f"alias {pattern}")
    for surface, own in catalogue.own.items():
        for model in own.allowed_models:
            use(model, surface)
        for model in own.fallback:
            use(model, f"fallback of {surface}")
    for model in lineup.unlisted:  # old names, which need not be on a list
        if model in lineup.direct or model in lineup.own_models():
            use(model, "calls for it")
    if catalogue.planner is not None:
        for name in ("planner_model", "fast_execution_model", "deep_execution_model"):
            use(getattr(catalogue.planner, name), f"planner ({name})")
    return {model: tuple(places) for model, places in found.items()}


def stages_that_lost_their_model(lineup: Lineup) -> list[str]:
    """Describe the stages whose first model is over and has no successor."""
    first = {stage: lineup.catalogue.stages[stage].model for stage in STAGES}
    return [
        f"stages.{stage}.model: {model} ended on {lineup.end_of(model)} and has no successor"
        for stage, model in first.items()
        if lineup.serving(model) in lineup.retired
    ]


def _heir(model: str, catalogue: Catalogue) -> str | None:
    """Return the last successor of a model, whenever it takes over."""
    successor = catalogue.entries[model].successor
    return successor and (_heir(successor, catalogue) or successor)


def _lasts(model: str, catalogue: Catalogue, today: date) -> bool:
    last_day = catalogue.entries[model].retires
    return last_day is None or (last_day - today).days > NOTICE_DAYS
