"""Compare a copy of a list with its home, naming what is missing."""

from collections.abc import Iterable


def assert_same(copy: Iterable[object], home: Iterable[object], where: str) -> None:
    """The copy at `where` has the members of the list at home and no others."""
    copied, members = set(copy), set(home)
    assert not members - copied, f"{where} lacks {members - copied}"
    assert not copied - members, f"{where} has {copied - members}, which the list does not have"
