"""Arguments of commands that make no sense: one sentence, no traceback."""

import pytest
from django.core.management import CommandError, call_command

from accounts.models import Organization
from codexflow.lib.clock import now
from tests.support.cast import Cast

A_KEY = ("create_key", "--organization", "analytical-engines")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*A_KEY, "--name", " "), "give 1 to 100 characters"),
        ((*A_KEY, "--name", "x" * 101), "give 1 to 100 characters"),
        ((*A_KEY, "--name", "x", "--rpm", "9" * 5_000), "no whole number"),
        ((*A_KEY, "--name", "x", "--budget-usd", "nan"), "nan"),
        (("create_operator_key", "--user", "root@example.org", "--name", "x" * 101), "give 1 to 100 characters"),
        (("catalogue", "versions", "--limit", "-1"), "no whole number"),
        (("catalogue", "versions", "--limit", "9" * 30), "no whole number"),
        (("catalogue", "diff", "9" * 30), "no whole number"),
        (("catalogue", "rollback", "0"), "no whole number"),
        (("catalogue", "apply", "config/models.yaml", "--note", "x" * 501), "give 1 to 500 characters"),
        (("reconcile", "--day", "yesterday"), "no day such as"),
        (("wrong_stages", "--since", "2026-13-01"), "no day such as"),
        (("catalogue", "check", "config/models.yaml", "--date", "x"), "no day such as"),
        (("reconcile", "--day", "9999-12-31"), "9999-12-31 has not begun"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_in_a_sentence(
    cast: Cast, arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(CommandError, match=said):
        call_command(*arguments)


def test_a_deleted_organization_gets_no_key(cast: Cast) -> None:
    Organization.objects.filter(pk=cast.organization.pk).update(deleted_at=now(), is_active=False)
    with pytest.raises(CommandError, match="is deleted"):
        call_command(*A_KEY, "--name", "x")
