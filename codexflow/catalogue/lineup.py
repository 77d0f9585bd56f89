"""Models that serve on one day: a name's own model, or the successor that has taken its place. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType

from codexflow.catalogue.entries import ModelEntry
from codexflow.catalogue.schema import RESERVED_MODELS, STAGES, Catalogue


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lineup:
    """A catalogue as it serves on one day. Chains are models in the order in which they are tried.

    A replaced model is exchanged for its successor in every chain; a retired one that nothing replaces is left out. An
    empty chain: nothing serves that stage or name any more.
    """

    catalogue: Catalogue
    stages: Mapping[str, tuple[str, ...]]  # stage -> its chain
    direct: Mapping[str, tuple[str, ...]]  # name that callers may use -> its chain
    own: Mapping[str, Mapping[str, tuple[str, ...]]]  # the same of each surface with models of its own
    retired: frozenset[str]  # known models that are over and that nothing replaces
    exchanged: Mapping[str, str]  # names whose successor serves them -> that successor
    # Names in use whose successor is due and that LiteLLM does not list: the named model itself is tried.
    unlisted: Mapping[str, str]
    models: frozenset[str]  # every model that may be tried

    def serving(self, name: str) -> str:
        """Return the model that serves calls for `name`."""
        return self.exchanged.get(name, name)

    def end_of(self, name: str) -> date | None:
        """Return the last day of the model behind `name`, as far as it is known."""
        entry = self.catalogue.entries.get(self.serving(name))
        return entry.retires if entry else None

    def own_models(self) -> dict[str, tuple[str, ...]]:
        """Return the chains of all names that only one surface serves."""
        return {name: chain for chains in self.own.values() for name, chain in chains.items()}

    def living(self) -> tuple[str, ...]:
        """Return the models that callers may name and that serve, as the file orders them."""
        chains = [self.direct[name] for name in self.catalogue.direct.allowed_models]
        return tuple(dict.fromkeys(chain[0] for chain in chains if chain))


def lineup_of(catalogue: Catalogue, today: date, listed: Collection[str] | None = None) -> Lineup:
    """Work out which models serve `today` (UTC). `listed`: the models that LiteLLM has; None: not known, so all."""
    entries = catalogue.entries
    serving = {name: _serving(name, entries, today, listed) for name in entries}
    heirs = {name: _serving(name, entries, today, None) for name in entries}
    retired = frozenset(name for name, entry in entries.items() if entry.successor is None and entry.is_retired(today))

    def chain(names: Iterable[str]) -> tuple[str, ...]:
        exchanged = (serving.get(name, name) for name in names)
        return tuple(dict.fromkeys(model for model in exchanged if model not in retired))

    def chains(
        allowed: Collection[str], fallback: tuple[str, ...], taken: Collection[str]
    ) -> Mapping[str, tuple[str, ...]]:
        """Chains of the names on a list, of their successors, and of every name that one of these has replaced.

        Names that are not on the list are left out while LiteLLM has no model for them.
        """
        living = {heirs.get(name, name) for name in allowed}
        more = [
            name
            for name, heir in heirs.items()
            if heir in living and name not in taken and (listed is None or serving[name] in listed)
        ]
        return MappingProxyType({
            name: chain((name, *fallback)) if serving.get(name, name) not in retired else ()
            for name in dict.fromkeys((*allowed, *more))
        })  # fmt: skip

    config = catalogue.direct
    named = {name for each in catalogue.own.values() for name in each.allowed_models}
    direct = chains(config.allowed_models, config.fallback, {*RESERVED_MODELS, *named})
    taken = {*RESERVED_MODELS, *direct}
    own: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for surface, models in catalogue.own.items():
        own[surface] = chains(models.allowed_models, models.fallback, taken | (named - {*models.allowed_models}))
        taken |= own[surface].keys()
    stages = {stage: chain((catalogue.stages[stage].model, *catalogue.stages[stage].fallback)) for stage in STAGES}
    in_use = {*catalogue.models, *taken} - RESERVED_MODELS
    return Lineup(
        catalogue=catalogue,
        stages=MappingProxyType(stages),
        direct=direct,
        own=MappingProxyType(own),
        retired=retired,
        exchanged=MappingProxyType({name: model for name, model in serving.items() if model != name}),
        unlisted=MappingProxyType(
            {name: heirs[name] for name in sorted(in_use) if heirs.get(name, name) != serving.get(name, name) == name}
        ),
        models=frozenset(serving.get(name, name) for name in in_use) - retired,
    )


def _serving(name: str, entries: Mapping[str, ModelEntry], today: date, listed: Collection[str] | None) -> str:
    """Follow the successors of a name that are due and listed. They form no circle."""
    entry = entries[name]
    if entry.successor is None or not entry.is_replaced(today):
        return name
    successor = _serving(entry.successor, entries, today, listed)
    return successor if listed is None or successor in listed else name
