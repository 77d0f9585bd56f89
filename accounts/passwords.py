"""Validators of new passwords."""

from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from codexflow.lib.weak_secrets import is_printed


class PrintedPasswordValidator:
    """Refuses passwords that a guide prints, in whatever letters: everybody who has read it would try them first."""

    def validate(self, password: str, user: Any = None) -> None:
        if is_printed(password):
            raise ValidationError(_("This password is printed in a guide. Choose another one."), code="printed")

    def get_help_text(self) -> str:
        return _("It must not be printed in a guide.")
