"""allauth's passkey forms, with translated labels."""

from typing import Any

from allauth.mfa.webauthn import forms
from django.utils.translation import gettext_lazy as _


class AddKeyForm(forms.AddWebAuthnForm):  # type: ignore[misc] # allauth has no types
    """Registers a security key. Passwordless sign-in is preselected: most users add a key for that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].label = _("Name")
        self.fields["passwordless"].initial = True


class EditKeyForm(forms.EditWebAuthnForm):  # type: ignore[misc] # allauth has no types
    """Renames a security key."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].label = _("Name")
