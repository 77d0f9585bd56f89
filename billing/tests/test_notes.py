"""Notes of the ledger in the language of a page."""

import pytest
from django.utils.translation import override

from billing.templatetags.notes import translated


@pytest.mark.parametrize(
    ("note", "turkish"),
    [
        ("Order CF-7K2M", "Sipariş CF-7K2M"),
        ("Code WELCOME", "Kod WELCOME"),
        ("Trial of Pro Max", "Pro Max denemesi"),
        ("Included credit of the plan Free", "Free planına dahil kredi"),
        ("Order of the day: pizza", "Order of the day: pizza"),
        ("", ""),
    ],
)
def test_what_the_ledger_writes_by_itself_is_translated_and_nothing_else(note: str, turkish: str) -> None:
    assert translated(note) == note
    with override("tr"):
        assert translated(note) == turkish
