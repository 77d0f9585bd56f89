"""Pytest plugin: seeded cuts of long tests, which `--whole` runs whole.

A test marked `cut(n)` has many cases of one kind, each of seconds. A run with a seed, as in CI, tries n of them, others
with each commit; a run without one, and the nightly run, tries all.
"""

from collections import defaultdict
from random import Random

import pytest

from tests.seeds import seed_of


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="no cuts: every case, and every page in every look")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--whole") or config.getoption("--hypothesis-seed") is None:
        return
    seed, cases = seed_of(config), defaultdict[str, list[pytest.Item]](list)
    for item in items:
        if item.get_closest_marker("cut"):
            cases[item.nodeid.partition("[")[0]].append(item)
    left_out: set[pytest.Item] = set()
    for name, each in cases.items():
        marker = each[0].get_closest_marker("cut")
        assert marker
        n = min(marker.args[0], len(each))
        left_out |= set(each) - set(Random(f"{seed} {name}").sample(each, n))  # noqa: S311 - no secret
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=sorted(left_out, key=lambda item: item.nodeid))
