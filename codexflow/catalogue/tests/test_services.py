"""Versions of the configuration: written only when valid, never changed."""

import pytest

from codexflow.catalogue import services
from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.schema import CatalogueError, parse
from codexflow.env import REPOSITORY

SHIPPED = (REPOSITORY / "config" / "models.yaml").read_text()
CHEAPER = SHIPPED.replace("cached_input: 1.25, output: 10}", "cached_input: 1, output: 10}")


@pytest.mark.django_db
def test_an_edit_is_stored_with_its_author() -> None:
    made = services.apply(CHEAPER, author="ada@example.org", note="Autumn prices")
    made.refresh_from_db()
    assert (made.text, made.version) == (CHEAPER, parse(CHEAPER, source="x").version)
    assert (made.source, made.author, made.note) == ("operator", "ada@example.org", "Autumn prices")


@pytest.mark.django_db
def test_an_invalid_edit_is_refused_with_every_problem_and_not_stored() -> None:
    with pytest.raises(CatalogueError) as caught:
        services.apply("stages: []\nnonsense: 1", author="ada@example.org")
    assert [problem.split(": ")[:2] for problem in caught.value.problems] == [
        ["operator edit", "stages"],
        ["operator edit", "direct"],
        ["operator edit", "nonsense"],
    ]
    assert not ConfigVersion.objects.exists()


@pytest.mark.django_db
def test_a_rollback_is_a_new_version() -> None:
    first = services.apply(SHIPPED, author="ada@example.org")
    services.apply(CHEAPER, author="ada@example.org")
    made = services.roll_back(first, author="ben@example.org")
    assert ConfigVersion.objects.first() == made
    assert (made.text, made.version, made.rollback_of) == (SHIPPED, first.version, first)
    assert (made.author, made.note) == ("ben@example.org", f"Back to version {first.pk}")


@pytest.mark.django_db
def test_a_version_that_is_no_longer_valid_cannot_be_rolled_back_to() -> None:
    old = ConfigVersion.objects.create(text="stages: []", version="0" * 12, source="file")
    with pytest.raises(CatalogueError, match=f"version {old.pk}: stages"):
        services.roll_back(old, author="ada@example.org")
    assert ConfigVersion.objects.count() == 1


def test_a_diff_shows_the_changes() -> None:
    lines = services.diff(SHIPPED, CHEAPER).splitlines()
    assert [line for line in lines if line.startswith(("-", "+"))] == [
        "--- old",
        "+++ new",
        "-    price: {input: 2.50, cached_input: 1.25, output: 10}",
        "+    price: {input: 2.50, cached_input: 1, output: 10}",
    ]
    assert services.diff(SHIPPED, SHIPPED) == ""
