"""allauth adapters: sign-up, mail, signing in by a provider, encryption of second-factor secrets."""

import logging
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.utils import filter_users_by_email
from allauth.core import context as current
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.core.internal.ratelimit import get_ip
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.providers.base import AuthError, AuthProcess
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy as _

from accounts import encryption, mail
from accounts.connections import (
    REAUTHENTICATE,
    SIGNUP_TIMEZONE,
    complete_reauthentication,
    connections_of,
    reauthentication_methods_of,
)
from accounts.middleware import timezone_of
from accounts.models import User, validate_timezone
from accounts.selectors import INVITATION_SESSION_KEY, invitation_by_token
from accounts.services import create_personal_organization, create_user_with_organization, ensure_site_settings
from codexflow.lib.ids import random_id

logger = logging.getLogger(__name__)

# Mails without which a page cannot go on; all others are notices of what has happened.
_AWAITED = tuple(
    f"account/email/{name}"
    for name in ("email_confirmation", "account_already_exists", "unknown_account", "password_reset_", "login_code")
)
# Messages that tell that a mail is on its way.
_SENT = ("account/messages/email_confirmation_sent.txt", "account/messages/login_code_sent.txt")


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc] # allauth has no types
    """Local accounts: sign-up creates a personal organization, and a new password clears must_change_password."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        if ensure_site_settings().is_signup_open:
            return True
        # An invitation allows sign-up even while it is closed.
        return invitation_by_token(request.session.get(INVITATION_SESSION_KEY, "")) is not None

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send in the recipient's language and time zone; for an unknown address, in those of the page.

        A mail that the server does not take is logged. If the page waits for it, as for a code, the page says so, for
        known and unknown addresses alike.
        """
        known = context.get("user") or User.objects.filter(email=email.lower()).first()
        try:
            if isinstance(known, User):
                with translation.override(known.language), timezone.override(timezone_of(known)):
                    super().send_mail(template_prefix, email, context)
            else:
                super().send_mail(template_prefix, email, context)
        except mail.FAILURES:
            logger.exception("mail.failed", extra={"mail": template_prefix})
            request = current.request
            if request is not None and template_prefix.startswith(_AWAITED):
                request.is_mail_away = True
                messages.error(request, _("The mail could not be sent. Try again in a few minutes."))

    def add_message(
        self, request: HttpRequest, level: int, message_template: str | None = None, *args: Any, **kwargs: Any
    ) -> None:
        if getattr(request, "is_mail_away", False) and message_template in _SENT:
            return
        super().add_message(request, level, message_template, *args, **kwargs)

    def send_account_already_exists_mail(self, email: str) -> None:
        """Do the work of a sign-up, and undo it: its time would tell that the address is known."""
        password = current.request.POST.get("password1")
        if password is not None:
            with transaction.atomic():
                create_user_with_organization(email=f"{random_id()}@invalid", password=password)
                transaction.set_rollback(True)
        super().send_account_already_exists_mail(email)

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """Count failed sign-ins by account and client address: those from elsewhere lock nobody out."""
        return f"{super()._get_login_attempts_cache_key(request, **credentials)}:{get_ip(request)}"

    def clean_email(self, email: str) -> str:
        return str(super().clean_email(email)).lower()

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        _prepare(user, zone=request.POST.get("timezone", ""))
        with transaction.atomic():
            super().save_user(request, user, form, commit=commit)
            if commit:
                create_personal_organization(user)
        return user

    def set_password(self, user: User, password: str) -> None:
        if user.must_change_password:
            user.must_change_password = False
            user.language = translation.get_language() or user.language
        super().set_password(user, password)

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("home")

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, Any]]:
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        return [*methods, *reauthentication_methods_of(user)] if isinstance(user, User) else methods


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc] # allauth has no types
    """Sign-in by a provider. An address that a provider reports never opens an existing account.

    A new user is created only for an address that the provider has verified. Otherwise an attacker could register
    somebody else's address in advance and keep access after its owner recovers the account by mail.
    """

    error_messages = {
        **DefaultSocialAccountAdapter.error_messages,
        "no_password": _("This is your only way in. Set a password first."),
    }

    def populate_user(self, request: HttpRequest, sociallogin: SocialLogin, data: dict[str, Any]) -> User:
        """Set the user's name and the provider's primary address. No more of the profile is kept."""
        user: User = sociallogin.user
        addresses = sociallogin.email_addresses = sociallogin.email_addresses[:1]
        user.email = addresses[0].email.lower() if addresses else ""
        name = data.get("name") or " ".join(filter(None, (data.get("first_name"), data.get("last_name"))))
        user.name = " ".join(str(name).split())[:150]
        profile = sociallogin.account.extra_data
        sociallogin.account.extra_data = {each: profile[each] for each in ("login", "email") if profile.get(each)}
        return user

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        # No longer needed, and what later steps need of the login is stored in the session.
        sociallogin.token = None
        sociallogin.state.pop("pkce_code_verifier", None)
        process = sociallogin.state.get("process")
        if process == REAUTHENTICATE:
            raise ImmediateHttpResponse(complete_reauthentication(request, sociallogin))
        if process == AuthProcess.CONNECT or sociallogin.is_existing:
            return
        address = next(iter(sociallogin.email_addresses), None)
        facts = {"provider": sociallogin.provider}
        if address is None or not address.verified:
            raise ImmediateHttpResponse(render(request, "socialaccount/unproved.html", facts, status=403))
        if filter_users_by_email(address.email):
            # This reveals no account: the provider has verified that the reader owns the address.
            raise ImmediateHttpResponse(render(request, "socialaccount/known.html", facts, status=409))

    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> User:
        _prepare(sociallogin.user, zone=request.session.pop(SIGNUP_TIMEZONE, ""))
        with transaction.atomic():
            user: User = super().save_user(request, sociallogin, form)
            create_personal_organization(user)
        return user

    def validate_disconnect(self, account: SocialAccount, accounts: Any) -> None:
        """Refuse to disconnect the last sign-in method. allauth would also count connections of removed providers."""
        if not account.user.has_usable_password() and not connections_of(account.user).exclude(pk=account.pk).exists():
            raise self.validation_error("no_password")

    def on_authentication_error(
        self, request: HttpRequest, provider: Any, error: Any = None, exception: Any = None, extra_context: Any = None
    ) -> None:
        if error != AuthError.CANCELLED:
            # What the provider wrote may hold codes and tokens.
            kind = type(exception).__name__ if exception else ""
            logger.warning("sign_in.provider_failed", extra={"provider": provider.id, "exception": kind})


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc] # allauth has no types
    """Encrypts authenticator secrets at rest (accounts/encryption.py)."""

    def encrypt(self, text: str) -> str:
        return encryption.encrypt(text, purpose=encryption.MFA)

    def decrypt(self, encrypted_text: str) -> str:
        return encryption.decrypt(encrypted_text, purpose=encryption.MFA)


def _prepare(user: User, *, zone: str) -> None:
    """Set a new user's language and time zone from the browser's."""
    user.language = translation.get_language() or user.language
    user.timezone = _zone(zone)


def _zone(name: str) -> str:
    """Return `name` if it is an IANA time zone, otherwise UTC."""
    try:
        validate_timezone(name)
    except ValidationError:
        return "UTC"
    return name
