"""Comparison of a list with its copies."""

from collections.abc import Iterable


def assert_same(copy: Iterable[object], original: Iterable[object], where: str) -> None:
    """Assert that the copy at `where` has exactly the members of the original; the message names the others."""
    copied, members = set(copy), set(original)
    assert not members - copied, f"{where} lacks {members - copied}"
    assert not copied - members, f"{where} has {copied - members}, which is not in the list"
