"""LiteLLM's models, and the lineup of the day."""

import logging
from dataclasses import replace
from datetime import date

import httpx
import pytest

from codexflow.catalogue import directory
from codexflow.catalogue.schema import Catalogue, parse
from codexflow.env import REPOSITORY
from codexflow.lib import clock
from routing.listing import ModelListing, models_of

SHIPPED = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="models.yaml")
NOON_S = 1_795_824_000 + 43_200.0  # 2026-11-28


class Scene:
    """The time and the catalogue in force."""

    def __init__(self) -> None:
        self.now_s = NOON_S
        self.catalogue = SHIPPED

    def end(self, model: str, day: date, successor: str | None = None) -> None:
        entry = replace(SHIPPED.entries[model], retires=day, successor=successor)
        self.catalogue = replace(SHIPPED, entries={**SHIPPED.entries, model: entry})


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    found = Scene()

    def current() -> Catalogue:
        return found.catalogue

    monkeypatch.setattr(clock, "now_s", lambda: found.now_s)
    monkeypatch.setattr(directory, "current", current)
    return found


def test_the_lineup_is_worked_out_again_only_after_a_change(scene: Scene) -> None:
    listing = ModelListing()
    first = listing.lineup()
    scene.now_s += 43_199
    assert listing.lineup() is first
    listing.take(frozenset(SHIPPED.models))
    second = listing.lineup()
    assert second is not first
    listing.take(frozenset(SHIPPED.models))
    assert listing.lineup() is second
    scene.catalogue = replace(SHIPPED)
    assert listing.lineup().catalogue is scene.catalogue


def test_a_successor_takes_over_at_midnight_utc(scene: Scene) -> None:
    scene.end("gpt-6-luna", date(2026, 11, 28), "claude-haiku-5.5")
    listing = ModelListing()
    scene.now_s = NOON_S + 43_199.9
    assert listing.lineup().direct["gpt-6-luna"] == ("gpt-6-luna",)
    scene.now_s = NOON_S + 43_200
    assert listing.lineup().direct["gpt-6-luna"] == ("claude-haiku-5.5",)


def test_models_that_litellm_lacks_are_missing_unless_a_listed_one_serves_for_them(scene: Scene) -> None:
    scene.end("gpt-6-luna", date(2026, 1, 1), "claude-haiku-5.5")
    listing = ModelListing()
    assert listing.missing() == []
    listing.take(frozenset(SHIPPED.models) - {"gpt-6-luna"})
    assert listing.missing() == []
    listing.take(frozenset(SHIPPED.models) - {"gpt-6-luna", "claude-haiku-5.5"})
    assert listing.missing() == ["claude-haiku-5.5", "gpt-6-luna"]
    scene.end("gpt-6-luna", date(2026, 1, 1))
    listing.take(frozenset(SHIPPED.models) - {"gpt-6-luna"})
    assert listing.missing() == [], "nobody asks for a retired model"


def test_each_warning_is_logged_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.end("gpt-6-luna", date(2026, 12, 20))
    listing = ModelListing()
    listing.policies = {"gpt-6-luna": ("3 keys",)}
    with caplog.at_level(logging.INFO):
        listing.warn()
        listing.warn()
        (logged,) = [record for record in caplog.records if record.message == "catalogue.model_ends"]
        assert (logged.levelno, logged.model, logged.days_left) == (logging.WARNING, "gpt-6-luna", 22)  # type: ignore[attr-defined]
        assert logged.used_by[-1] == "3 keys"  # type: ignore[attr-defined]
        caplog.clear()
        scene.now_s += 8 * 86_400  # 14 days are left
        listing.warn()
        assert len(caplog.records) == 1
        caplog.clear()
        scene.end("gpt-6-luna", date(2026, 1, 1), "claude-haiku-5.5")
        listing.take(frozenset({"gpt-6-luna"}))
        listing.warn()
        listing.warn()
        unlisted = [record for record in caplog.records if record.message == "catalogue.successor_not_listed"]
        assert [record.model for record in unlisted] == ["gpt-6-luna"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"data":[1]}', b'{"data":null}', b'{"data":[{"model":1}]}'])
async def test_a_list_of_unknown_form_is_a_value_error(body: bytes) -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, content=body))
    async with httpx.AsyncClient(transport=transport, base_url="http://litellm") as client:
        with pytest.raises(ValueError, match=r".+"):
            await models_of(client)
