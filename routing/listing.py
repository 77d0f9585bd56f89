"""Models that LiteLLM lists, and the lineup that follows from them."""

import logging
from datetime import date

import httpx

from codexflow.catalogue import directory
from codexflow.catalogue.ends import End, ends_of
from codexflow.catalogue.lineup import Lineup, lineup_of
from codexflow.lib import clock

logger = logging.getLogger(__name__)

DAY_S = 86_400
_UNIX_EPOCH = date(1970, 1, 1).toordinal()


class ModelListing:
    """LiteLLM's models as last seen, and the models that serve today. One instance per process.

    Until LiteLLM has told its models, it is taken to have all of them.
    """

    def __init__(self) -> None:
        self.listed: frozenset[str] | None = None
        self.policies: dict[str, tuple[str, ...]] = {}  # keys and plans that name a model, as last read
        self._lineup: Lineup | None = None
        self._day = 0
        self._day_ends_s = 0.0
        self._warned: set[tuple[str, str]] = set()

    def lineup(self) -> Lineup:
        """Return the lineup of the catalogue in force: worked out after a change only, since every request asks."""
        catalogue, lineup = directory.current(), self._lineup
        if lineup is None or lineup.catalogue is not catalogue or clock.now_s() >= self._day_ends_s:
            self._day = int(clock.now_s() // DAY_S)
            self._day_ends_s = (self._day + 1) * DAY_S
            lineup = self._lineup = lineup_of(catalogue, self._today, self.listed)
        return lineup

    @property
    def _today(self) -> date:
        return date.fromordinal(_UNIX_EPOCH + self._day)

    def ends(self) -> list[End]:
        """List the models in use that end soon."""
        lineup = self.lineup()
        return ends_of(lineup, self._today, self.policies)

    def take(self, listed: frozenset[str]) -> None:
        """Take LiteLLM's models into account."""
        if listed != self.listed:
            self.listed, self._lineup = listed, None

    def missing(self) -> list[str]:
        """Return models that models.yaml needs and LiteLLM does not list; none while its list is not known."""
        if self.listed is None:
            return []
        lineup = self.lineup()
        return sorted({lineup.serving(name) for name in lineup.catalogue.models} - lineup.retired - self.listed)

    def warn(self) -> None:
        """Log what the operator should know of the models, each fact once."""
        for name, successor in self.lineup().unlisted.items():
            if self._is_new(name, "unlisted"):
                logger.warning("catalogue.successor_not_listed", extra={"model": name, "successor": successor})
        for end in self.ends():
            if self._is_new(end.model, end.level):
                logger.log(
                    logging.INFO if end.is_replaced else logging.WARNING, "catalogue.model_ends", extra=end.facts()
                )

    def _is_new(self, model: str, fact: str) -> bool:
        if (model, fact) in self._warned:
            return False
        self._warned.add((model, fact))
        return True


async def models_of(client: httpx.AsyncClient) -> frozenset[str]:
    """Ask LiteLLM for the names of its models. Raises httpx.HTTPError, and ValueError when the answer is none."""
    response = await client.get("/model/info")
    response.raise_for_status()
    try:
        return frozenset(str(each["model_name"]) for each in response.json()["data"])
    except (KeyError, TypeError) as exc:
        raise ValueError("LiteLLM's list of models has an unknown form") from exc
