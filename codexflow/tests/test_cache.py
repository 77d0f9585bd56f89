"""The cache: one client for all requests; values of many keys, computed once, for those that are not known."""

from collections.abc import Sequence
from contextvars import Context

import pytest
from django.core.cache import caches

from codexflow.lib.cache import cached_each
from codexflow.lib.ids import random_id


def test_all_requests_use_one_client() -> None:
    first, second = (Context().run(lambda: caches["default"]) for _ in range(2))  # each request has a context
    assert first is not second
    assert first._cache.get_client("a") is second._cache.get_client("b", write=True)  # type: ignore[attr-defined]


def test_only_unknown_keys_are_computed_and_in_their_order() -> None:
    prefix, asked = str(random_id()), []

    def compute(missing: Sequence[str]) -> dict[str, int]:
        asked.append([key.removeprefix(prefix) for key in missing])
        return {key: len(asked) for key in [*missing, "another"]}

    def values(names: str) -> list[int]:
        keys = [prefix + name for name in names]
        found = cached_each(keys, compute, seconds=60)
        return [found[key] for key in keys]

    assert values("ba") == [1, 1]
    assert values("dbc") == [2, 1, 2]
    assert values("abcd") == [1, 1, 2, 2]
    assert values("") == []
    assert asked == [["b", "a"], ["d", "c"]]


def test_without_redis_all_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("codexflow.lib.cache.cache.get_many", gone)
    monkeypatch.setattr("codexflow.lib.cache.cache.set_many", gone)
    for _ in range(2):
        assert cached_each(["a"], lambda missing: dict.fromkeys(missing, 7), seconds=60) == {"a": 7}
