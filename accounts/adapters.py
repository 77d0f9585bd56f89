"""allauth's hooks, nothing else: what happens of ours when somebody signs up, and what they may."""

import base64
import hashlib
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.fernet import Fernet
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.urls import reverse
from django.utils import translation

from accounts.models import User, validate_timezone
from accounts.selectors import INVITED, invitation_by_token
from accounts.services import create_personal_organization, ensure_site_settings


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc] # allauth has no types
    """Sign-up makes a person with a personal organization; a new password ends the duty to choose one."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        if ensure_site_settings().is_signup_open:
            return True
        # Whoever came by an invitation may.
        return invitation_by_token(request.session.get(INVITED, "")) is not None

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """In the language of the person it goes to, whoever caused it; of a stranger, in the page's."""
        known = context.get("user") or User.objects.filter(email=email.lower()).first()
        with translation.override(known.language if isinstance(known, User) else translation.get_language()):
            super().send_mail(template_prefix, email, context)

    def clean_email(self, email: str) -> str:
        return str(super().clean_email(email)).lower()

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        user.language = translation.get_language() or user.language
        user.timezone = _zone(request.POST.get("timezone", ""))
        with transaction.atomic():
            super().save_user(request, user, form, commit=commit)
            if commit:
                create_personal_organization(user)
        return user

    def set_password(self, user: User, password: str) -> None:
        user.must_change_password = False
        super().set_password(user, password)

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("home")


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc] # allauth has no types
    """Secrets of authenticator apps are stored encrypted, under a key made of Django's secret."""

    def encrypt(self, text: str) -> str:
        return _fernet().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return _fernet().decrypt(encrypted_text.encode()).decode()


def _fernet() -> Fernet:
    digest = hashlib.sha256(b"accounts.mfa:" + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))


def _zone(name: str) -> str:
    """The browser's time zone when it named a real one."""
    try:
        validate_timezone(name)
    except ValidationError:
        return "UTC"
    return name
