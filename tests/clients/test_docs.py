"""The table in docs/clients matches the clients that `make clients` tries."""

import json
import re
from datetime import date

import pytest

from codexflow.env import REPOSITORY
from codexflow.pages.library import TRANSLATIONS
from tests.clients.install import HERE
from tests.clients.tested import PACKAGES, PAGES, UNPINNED, recorded, renewed, version_of
from tests.clients.trials import TRIALS
from tests.support.lists import assert_same

DOCS = REPOSITORY / "docs" / "clients"


def rows() -> dict[str, list[str]]:
    lines = re.findall(r"^\| \[[^\]]+\]\(([\w-]+)\.md\) \|(.*)\|$", (DOCS / "README.md").read_text(), re.MULTILINE)
    return {page: [cell.strip() for cell in cells.split("|")] for page, cells in lines}


def test_every_page_is_in_the_table() -> None:
    assert_same(rows(), {path.stem for path in DOCS.glob("*.md")} - {"README"}, "docs/clients/README.md")
    assert_same(PAGES, TRIALS, "PAGES in tests/clients/tested.py")
    assert_same({*PACKAGES, *UNPINNED}, PAGES.values(), "PACKAGES in tests/clients/tested.py")
    untested = {page for page, cells in rows().items() if cells[1] == "not tested"}
    assert_same({*PACKAGES, *UNPINNED, *untested, "curl"}, rows(), "PACKAGES in tests/clients/tested.py")


@pytest.mark.parametrize("page", PACKAGES)
def test_documented_versions_are_the_pinned_ones(page: str) -> None:
    version = version_of(page)
    assert rows()[page][1] == version
    for folder in ("", *TRANSLATIONS.values()):
        file = DOCS.parent / folder / "clients" / f"{page}.md"
        assert not file.exists() or version in file.read_text(), file


def test_shown_dates_of_tests_belong_to_the_pinned_versions() -> None:
    """A new pin without a passed test (`make clients`) fails here."""
    record = recorded()
    assert {page: each["version"] for page, each in record.items()} == {
        page: version_of(page) for page in PAGES.values()
    }
    assert all(date.fromisoformat(each["tested_on"]) for each in record.values())


def test_a_passed_test_is_recorded_with_its_day() -> None:
    known = {"pi": {"version": "1", "tested_on": "2026-11-01"}, "aider": {"version": "2", "tested_on": "2026-11-01"}}
    after = renewed(known, {"pi": "3"}, date(2026, 11, 29))
    assert after == known | {"pi": {"version": "3", "tested_on": "2026-11-29"}}
    assert list(after) == ["aider", "pi"]


def test_pages_of_untested_clients_say_so() -> None:
    for page, cells in rows().items():
        assert ("Not tested" in (DOCS / f"{page}.md").read_text()) == (cells[1] == "not tested")


def test_the_lock_file_names_no_host() -> None:
    locked = json.loads((HERE / "node" / "package-lock.json").read_text())["packages"]
    assert [name for name, package in locked.items() if "resolved" in package] == []
    assert [name for name, package in locked.items() if name and "integrity" not in package] == []
