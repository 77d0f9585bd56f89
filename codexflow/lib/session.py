"""Browser sessions outside of Django's middleware: the raw ASGI applications authenticate with them, too."""

from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest, parse_cookie


def session_key_in(cookies: bytes) -> str:
    """Return the session key in a Cookie header, or "".

    Parsed as Django does: Python's own parser gives up at the first foreign cookie that it cannot read.
    """
    return parse_cookie(cookies.decode("latin-1")).get(settings.SESSION_COOKIE_NAME, "")


def user_of_session(session_key: str) -> Any:
    """Return the active user of a session, or None.

    Django's own rules decide: a session ends in time, and with the password that it was begun with. Reads the database.
    """
    if not session_key:
        return None
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = auth.get_user(request)
    return user if user.is_authenticated and user.is_active else None
