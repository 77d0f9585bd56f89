"""Mails about models that end: who gets one, once, and what it says."""

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail as outbox

from accounts.models import User
from billing.tests.factories import an_organization
from codexflow.catalogue import directory, services
from codexflow.env import REPOSITORY
from codexflow.lib import clock
from keys.models import ApiKey
from keys.tests.factories import a_key
from logs.model_ends import notices
from logs.models import ModelEndNotice, UsageDaily
from logs.pipeline.rollups import NO_KEY

pytestmark = pytest.mark.django_db
SHIPPED = (REPOSITORY / "config" / "models.yaml").read_text()
PRICE = "price: {input: 1, output: 2}"


@pytest.fixture(autouse=True)
def catalogue() -> Any:
    """Models that end: soon without a successor, soon with one, long ago, later, and one that stays."""
    today = clock.now().date()
    models = f"""models:
  ends-soon: {{{PRICE}, retires: {today + timedelta(days=20)}}}
  has-heir: {{{PRICE}, retires: {today + timedelta(days=20)}, successor: stays}}
  is-over: {{{PRICE}, retires: {today - timedelta(days=5)}, successor: stays}}
  ends-later: {{{PRICE}, retires: {today + timedelta(days=61)}}}
  stays: {{{PRICE}}}
"""
    services.apply(SHIPPED.replace("\nmodels:\n", f"\n{models}", 1), author="test")
    directory.refresh()
    yield
    services.apply(SHIPPED, author="test")
    directory.refresh()


def an_owner(name: str, language: str = "en") -> tuple[User, Any]:
    owner = User.objects.create_user(f"{name}@example.org", language=language)
    return owner, an_organization(owner=owner)


def named(key: ApiKey, name: str) -> ApiKey:
    ApiKey.objects.filter(pk=key.pk).update(name=name)
    return key


def used(key: ApiKey, model: str, *, days_ago: int = 1) -> None:
    UsageDaily.objects.create(
        organization_id=key.organization_id,
        day=clock.now().date() - timedelta(days=days_ago),
        key_id=key.pk,
        user_id=key.created_by_id,
        model=model,
        stage="direct",
        requests=1,
    )


def test_each_owner_of_keys_that_used_a_model_gets_one_mail_for_it() -> None:
    ada, organization = an_owner("ada")
    first, second = (named(a_key(organization).row, name) for name in ("ci", "laptop"))
    _eve, others = an_owner("eve")
    unused, long_ago = a_key(others).row, a_key(others).row
    for key in (first, second):
        used(key, "ends-soon")
    used(first, "stays")
    used(first, "ends-later")
    used(long_ago, "ends-soon", days_ago=31)
    assert unused.pk != NO_KEY
    assert notices.send_notices() == 1
    (sent,) = outbox.outbox
    assert sent.to == [ada.email]
    assert sent.subject.startswith("ends-soon ends on ")
    assert "- ci\n- laptop" in sent.body
    assert "model_retired" in sent.body
    assert notices.send_notices() == 0
    assert len(outbox.outbox) == 1


def test_whoever_has_left_is_not_told_of_the_keys_they_made() -> None:
    ada, organization = an_owner("ada")
    ben = User.objects.create_user("ben@example.org")
    kept, own = a_key(organization).row, named(a_key(organization).row, "own")
    ApiKey.objects.filter(pk=kept.pk).update(created_by=ben)
    for key in (kept, own):
        used(key, "ends-soon")
    assert notices.send_notices() == 1
    assert [sent.to for sent in outbox.outbox] == [[ada.email]]


@pytest.mark.parametrize(
    ("model", "words"),
    [("has-heir", "from then on, calls for has-heir are served by stays"), ("is-over", "are served by stays")],
)
def test_the_mail_says_what_serves_instead(model: str, words: str) -> None:
    _ada, organization = an_owner("ada")
    used(a_key(organization).row, model)
    assert notices.send_notices() == 1
    assert words in outbox.outbox[0].body


def test_it_is_in_the_language_of_its_reader() -> None:
    _ada, organization = an_owner("ada", language="tr")
    used(a_key(organization).row, "ends-soon")
    notices.send_notices()
    assert "Merhaba" in outbox.outbox[0].body


def test_a_mail_that_was_refused_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _ada, organization = an_owner("ada")
    used(a_key(organization).row, "ends-soon")
    monkeypatch.setattr("accounts.mail.send", lambda *_, **__: False)
    assert notices.send_notices() == 0
    assert not ModelEndNotice.objects.exists()
    monkeypatch.undo()
    assert notices.send_notices() == 1


def test_revoked_keys_and_closed_accounts_get_none() -> None:
    ada, organization = an_owner("ada")
    key = a_key(organization).row
    used(key, "ends-soon")
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=clock.now())
    assert notices.send_notices() == 0
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=None)
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert notices.send_notices() == 0
