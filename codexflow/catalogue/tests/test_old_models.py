"""Names of the commissioning documents, and their own models.yaml."""

from datetime import date

import pytest

from codexflow.catalogue.ends import ends_of
from codexflow.catalogue.lineup import lineup_of
from codexflow.catalogue.schema import Catalogue, parse
from codexflow.env import REPOSITORY

TODAY = date(2026, 11, 28)
SHIPPED = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="models.yaml")
GUIDE = parse((REPOSITORY / "tests" / "support" / "guide" / "models.yaml").read_text(), source="guide")
SUCCESSORS = {
    "claude-sonnet-4.5": "claude-sonnet-5.5",
    "claude-haiku-3.5": "claude-haiku-5.5",
    "gpt-4o": "gpt-6.1-sol",
    "gpt-4o-mini": "gpt-6-luna",
    "deepseek-v3": "deepseek-v4.1-flash",
    "gemini-2.5-pro": "gemini-3.8-flash",
    "gemini-2.0-flash": "gemini-3.5-flash-lite",
}


@pytest.mark.parametrize("catalogue", [SHIPPED, GUIDE], ids=["shipped", "guide"])
def test_each_old_name_and_its_successor_may_be_named(catalogue: Catalogue) -> None:
    lineup = lineup_of(catalogue, TODAY)
    for name, successor in SUCCESSORS.items():
        assert lineup.direct[name] == lineup.direct[successor] == (successor,)


def test_the_guides_file_serves_living_models() -> None:
    lineup = lineup_of(GUIDE, TODAY)
    assert lineup.stages == {
        "plan": ("claude-sonnet-5.5", "gemini-3.8-flash", "gpt-6.1-sol"),
        "code": ("deepseek-v4.1-flash", "gemini-3.5-flash-lite", "gpt-6-luna"),
        "review": ("gpt-6-luna", "gemini-3.5-flash-lite", "claude-haiku-5.5"),
    }
    assert all(end.is_replaced and end.is_covered for end in ends_of(lineup, TODAY))
    assert {end.model for end in ends_of(lineup, TODAY)} == set(SUCCESSORS)


def test_the_guides_file_over_the_guides_litellm_serves_the_old_models() -> None:
    """That LiteLLM has no others."""
    listed = set(SUCCESSORS) - {"claude-haiku-3.5"}
    lineup = lineup_of(GUIDE, TODAY, listed)
    assert lineup.stages["plan"] == ("claude-sonnet-4.5", "gemini-2.5-pro", "gpt-4o")
    assert lineup.unlisted == SUCCESSORS
    assert not set(SUCCESSORS.values()) & lineup.direct.keys()


def test_no_shipped_model_ends_soon_that_is_in_use() -> None:
    assert not ends_of(lineup_of(SHIPPED, TODAY), TODAY)
    assert not set(SHIPPED.models) & set(SUCCESSORS)
