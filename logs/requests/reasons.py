"""Labels of stage reasons."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from codexflow.catalogue.reasons import (
    AGENT,
    ALIAS,
    DEFAULT,
    DIFF,
    HEADER,
    INTENT,
    KEYWORD,
    MODEL,
    PAST_GATEWAY,
    STAGE_ALIAS,
    SUCCESSOR,
)

LABELS: dict[str, Promise] = {
    HEADER: _("the X-CFX-Stage header named it"),
    MODEL: _("model named in the request"),
    STAGE_ALIAS: _("the model name is a stage's alias"),
    ALIAS: _("the model name matches an alias"),
    SUCCESSOR: _("the successor of the named model serves it"),
    AGENT["plan"]: _("a coding agent is in plan mode"),
    AGENT["review"]: _("a reviewer's role or command"),
    AGENT["code"]: _("the tools of a coding agent at work"),
    DIFF: _("the last message brings a diff"),
    INTENT: _("what the last message asks for"),
    KEYWORD: _("words of the last message"),
    DEFAULT: _("nothing said otherwise"),
    PAST_GATEWAY: _("it went straight to LiteLLM"),
}


def label_of(reason: str) -> str:
    """Label of a stage reason in the reader's language; an unknown reason as it is."""
    return str(LABELS.get(reason, reason))
