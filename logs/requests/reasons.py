"""Why a request went the way it did, in words."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

_REASONS: dict[str, Promise] = {
    "header": _("the X-CFX-Stage header named it"),
    "model": _("the request named the model"),
    "stage-alias": _("the model name is a stage's alias"),
    "alias": _("the model name matches an alias"),
    "agent-plan": _("a coding agent is in plan mode"),
    "agent-review": _("a reviewer's role or command"),
    "agent-code": _("the tools of a coding agent at work"),
    "diff": _("the last message brings a diff"),
    "intent": _("what the last message asks for"),
    "keyword": _("words of the last message"),
    "default": _("nothing said otherwise"),
    "past_gateway": _("it went straight to LiteLLM"),
}


def in_words(reason: str) -> str:
    """A stage reason in the reader's language; an unknown one as it is."""
    return str(_REASONS.get(reason, reason))
