"""Encryption of authenticator secrets, and its rotation."""

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from accounts import encryption
from accounts.encryption import Counts
from accounts.models import Organization, User, WebhookEndpoint

OLD, NEW = "an-old-secret-of-the-tests-only-0123", "a-new-secret-of-the-tests-only-0123"


@pytest.fixture
def enrolled(db: None, settings: Any) -> Authenticator:
    """An authenticator app that was enrolled under the old secret."""
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = OLD, []
    user = User.objects.create_user("ada@example.org", "correct horse battery")
    data = {"secret": encryption.encrypt("JBSWY3DPEHPK3PXP", purpose=encryption.MFA)}
    return Authenticator.objects.create(user=user, type=Authenticator.Type.TOTP, data=data)


def rotated(settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]


@given(st.text(max_size=40))
def test_what_is_encrypted_is_decrypted(text: str) -> None:
    assert encryption.decrypt(encryption.encrypt(text, purpose=encryption.MFA), purpose=encryption.MFA) == text


def test_secrets_go_on_working_during_a_rotation_and_after_it(
    enrolled: Authenticator, settings: Any, capsys: Any
) -> None:
    rotated(settings)
    assert encryption.decrypt(enrolled.data["secret"], purpose=encryption.MFA) == "JBSWY3DPEHPK3PXP"
    assert encryption.count_secrets() == Counts(previous=1)
    call_command("rotate_secrets")
    assert "1 re-encrypted, 1 under the current" in capsys.readouterr().out
    settings.SECRET_KEY_FALLBACKS = []
    enrolled.refresh_from_db()
    assert encryption.decrypt(enrolled.data["secret"], purpose=encryption.MFA) == "JBSWY3DPEHPK3PXP"
    call_command("rotate_secrets")
    assert encryption.count_secrets() == Counts(current=1)


def test_secrets_of_a_forgotten_key_are_counted_and_kept(enrolled: Authenticator, settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, []
    before = dict(enrolled.data)
    with pytest.raises(CommandError, match="1 cannot be decrypted"):
        call_command("rotate_secrets")
    enrolled.refresh_from_db()
    assert enrolled.data == before
    assert encryption.count_secrets() == Counts(unreadable=1)


def test_secrets_of_earlier_releases_name_no_key(enrolled: Authenticator, settings: Any) -> None:
    enrolled.data["secret"] = enrolled.data["secret"].partition(":")[2]
    enrolled.save()
    assert encryption.decrypt(enrolled.data["secret"], purpose=encryption.MFA) == "JBSWY3DPEHPK3PXP"
    assert encryption.rotate() == Counts(previous=1)
    assert encryption.count_secrets() == Counts(current=1)


def test_a_ciphertext_tells_nothing_of_its_key() -> None:
    name = encryption.key_id(OLD)
    assert len(name) == 8
    assert name not in Fernet.generate_key().decode()
    assert encryption.key_id(NEW) != name


def test_secrets_of_webhooks_are_rotated_as_well(db: None, settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = OLD, []
    ada = User.objects.create_user("ada@example.org")
    organization = Organization.objects.create(name="Analytical Engines", slug="engines")
    endpoint = WebhookEndpoint.objects.create(
        organization=organization,
        created_by=ada,
        url="https://example.com/",
        events=["key.created"],
        sealed_secret=encryption.encrypt("whsec_new", purpose=encryption.WEBHOOKS),
        sealed_secret_before=encryption.encrypt("whsec_old", purpose=encryption.WEBHOOKS),
    )
    rotated(settings)
    assert encryption.rotate() == Counts(previous=2)
    settings.SECRET_KEY_FALLBACKS = []
    endpoint.refresh_from_db()
    read = [
        encryption.decrypt(each, purpose=encryption.WEBHOOKS)
        for each in (endpoint.sealed_secret, endpoint.sealed_secret_before)
    ]
    assert read == ["whsec_new", "whsec_old"]


def test_a_ciphertext_of_one_purpose_is_none_of_another() -> None:
    ciphertext = encryption.encrypt("x", purpose=encryption.MFA)
    with pytest.raises(encryption.CannotDecrypt):
        encryption.decrypt(ciphertext, purpose=encryption.WEBHOOKS)
