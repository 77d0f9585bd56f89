"""Sentences about searches that are none, and the names that searches use."""

from django.utils import translation
from django.utils.translation import gettext as _

from accounts.models import Organization
from keys.selectors import key_names_of
from logs.requests.conditions import FIELDS, Names
from logs.requests.terms import MAX_TERMS, BadSearch

MAX_MEMBERS = 500


def sentence_of(problem: BadSearch) -> str:
    """Sentence about what is wrong with a search, in the reader's language."""
    example = FIELDS[problem.field][1] if problem.field in FIELDS else ""
    facts = {"field": problem.field, "value": problem.value, "example": example, "fields": ", ".join(FIELDS)}
    if problem.kind == "unknown_field":
        return _("There is no field “%(field)s”. Fields: %(fields)s.") % facts
    if problem.kind == "unknown_name":
        if problem.field == "key":
            return _("No key is called “%(value)s”.") % facts
        return _("No member is called “%(value)s”.") % facts
    if problem.kind == "unclosed":
        return _("A quotation mark is not closed.")
    if problem.kind == "too_many":
        return _("At most %(number)s terms can be searched for at a time.") % {"number": MAX_TERMS}
    if problem.kind == "no_value" and not example:
        return _("“%(field)s:” has no value. Fields: %(fields)s.") % facts
    if problem.kind == "no_value":
        return _("“%(field)s:” has no value. Examples: %(example)s.") % facts
    return _("“%(value)s” isn't a value of “%(field)s”. Examples: %(example)s.") % facts


def english_sentence_of(problem: BadSearch) -> str:
    """The same in English, for programs."""
    with translation.override("en"):
        return sentence_of(problem)


def names_of(organization: Organization) -> Names:
    """Names of the organization's keys and members, the newest 500 keys at most."""
    members = organization.memberships.select_related("user").order_by("user__email")[:MAX_MEMBERS]
    people = [(each.user_id, each.user) for each in members]
    return Names.of(
        [(str(pk), name) for pk, name in key_names_of(organization).items()],
        [(str(pk), name) for pk, user in people for name in (user.email, user.name) if name],
    )
