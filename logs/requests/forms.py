"""Form of the request log's filters, read from the URL."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from accounts.tenancy import Tenant
from codexflow.catalogue import directory
from codexflow.catalogue.schema import ALL_STAGES
from codexflow.lib.ids import parse_id
from codexflow.templatetags import show
from keys.selectors import key_labels_of, key_names_of
from logs.pipeline.retention import kept_since
from logs.requests.conditions import Condition, Names, conditions_of
from logs.requests.selectors import Filters
from logs.requests.sentences import MAX_MEMBERS, sentence_of
from logs.requests.terms import MAX_TEXT, BadSearch, Term, parse, text_of
from logs.usage.periods import RANGES

_CODE = re.compile(r"[a-zA-Z0-9_.-]+")
_MODEL = re.compile(r"[\w.:/@+-]{1,200}")
_MEMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_ID = re.compile(r"[0-9a-fA-F-]{1,36}")
DEFAULT_RANGE = "7d"
SPAN = ("since", "until")
# Choices from which on a list has a field to search it by.
LONG_LIST = 30
STATUSES = [
    ("", _("Any status")),
    ("ok", _("Succeeded")),
    ("errors", _("Failed")),
    ("429", "429"),
    ("400", "400"),
    ("402", "402"),
    ("499", "499"),
    ("502", "502"),
    ("503", "503"),
    ("504", "504"),
]
RANGE_NAMES = {"24h": _("24 hours"), "7d": _("7 days"), "14d": _("14 days"), "30d": _("30 days"), "90d": _("90 days")}


Choices = Sequence[tuple[str, str]]


class LogFilterForm(forms.Form):
    """Filters, all optional. An invalid one is left out, not refused."""

    id = forms.CharField(label=_("Request id"), required=False, max_length=36, strip=True)
    status = forms.ChoiceField(label=_("Status"), required=False, choices=STATUSES)
    stage = forms.ChoiceField(label=_("Stage"), required=False)
    model = forms.ChoiceField(label=_("Model"), required=False)
    key = forms.ChoiceField(label=_("Key"), required=False)
    member = forms.ChoiceField(label=_("Member"), required=False)
    planned = forms.ChoiceField(
        label=_("Planner"), required=False, choices=[("", _("Planned or not")), ("1", _("Answered in parts"))]
    )
    tag = forms.CharField(label=_("Tag"), required=False, max_length=64, strip=True)
    code = forms.CharField(label=_("Error code"), required=False, max_length=100, strip=True)
    # An exact time, of which the overview's points and rows are; it takes the place of the range.
    since = forms.CharField(label=_("From"), required=False, max_length=40)
    until = forms.CharField(label=_("Until"), required=False, max_length=40)
    range = forms.ChoiceField(label=_("Time range"), required=False, choices=list(RANGE_NAMES.items()))

    q = forms.CharField(label=_("Search"), required=False, max_length=MAX_TEXT, strip=True)

    def __init__(
        self, *args: Any, models: list[str], keys: Choices, members: Choices, names: Names | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.keys = keys
        self.names = names or Names()
        self.conditions: tuple[Condition, ...] = ()
        choices = {
            "stage": [("", _("Any stage")), *((stage, stage) for stage in ALL_STAGES)],
            "model": [("", _("Any model")), *((model, model) for model in models)],
            "key": [("", _("Any key")), *keys],
            "member": [("", _("Any member")), *members],
        }
        for name, options in choices.items():
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
            field.choices = options

    def clean_id(self) -> str:
        text = str(self.cleaned_data["id"]).lstrip("…")  # as the table shows it
        if text and not _ID.fullmatch(text):
            raise forms.ValidationError(_("That doesn't look like a request ID."))
        return text

    def clean_code(self) -> str:
        text = str(self.cleaned_data["code"])
        if text and not _CODE.fullmatch(text):
            raise forms.ValidationError(_("An error code has letters, digits and underscores."))
        return text

    def clean_since(self) -> str:
        return _moment(self.cleaned_data["since"])

    def clean_until(self) -> str:
        return _moment(self.cleaned_data["until"])

    @property
    def span(self) -> tuple[datetime | None, datetime | None] | None:
        """First moment and end (excluded) of the exact time, if one is set. Either may be open."""
        ends = [datetime.fromisoformat(text) if (text := self.chosen.get(name)) else None for name in SPAN]
        return None if ends == [None, None] else (ends[0], ends[1])

    def clean_q(self) -> str:
        text = str(self.cleaned_data["q"])
        try:
            self.conditions = conditions_of(parse(text), lambda: self.names)
        except BadSearch as problem:
            raise forms.ValidationError(sentence_of(problem)) from problem
        return text

    @property
    def bar(self) -> str:
        """Text of the search bar: the search, and the filters that have no field of their own."""
        asked = [(name, str(self.data.get(name, "")).strip()) for name in ("id", "tag", "code")]
        terms = [Term(name, (value,)) for name, value in asked if value]
        return " ".join(filter(None, (str(self.data.get("q", "")).strip(), text_of(terms))))

    @property
    def problems(self) -> list[str]:
        """Sentences about what was typed and cannot be searched for."""
        return [str(each) for name in ("q", "id", "code") for each in self.errors.get(name, ())]

    @property
    def sent(self) -> dict[str, str]:
        """Filters for a form that repeats them, with those that are invalid: left out, they would match more."""
        invalid = {name: str(self.data[name]) for name in ("q", "id", "code") if name in self.errors}
        return {**self.chosen, **invalid}

    @property
    def selects(self) -> list[tuple[forms.BoundField, bool, str]]:
        """Fields that are chosen from lists, whether the list is too long to look through, and the chosen label."""
        found = []
        for field in self:
            if field.name not in ("q", "id", "tag", "code", *SPAN):
                choices: dict[Any, Any] = dict(getattr(field.field, "choices", ()))
                value = field.value()
                found.append((field, len(choices) > LONG_LIST, str(choices.get(value, "")) if value else ""))
        return found

    @property
    def chosen(self) -> dict[str, str]:
        """Filters that are set, for links."""
        self.is_valid()
        return {name: str(value) for name, value in self.cleaned_data.items() if value}

    @property
    def named(self) -> list[tuple[str, str]]:
        """Labels and values of the filters that are set, for display."""
        labels = []
        chosen = self.chosen if self.span else {"range": DEFAULT_RANGE, **self.chosen}
        for name, value in chosen.items():
            field = self.fields[name]
            if name in SPAN:
                value = show.zoned(datetime.fromisoformat(value))
            choices: dict[Any, Any] = dict(getattr(field, "choices", ()))
            labels.append((str(field.label), str(choices.get(value, value))))
        return labels

    def filters(self, now: datetime, *, retention_days: int) -> Filters:
        """Filters of the form, no further back than the plan's retention."""
        chosen = self.chosen
        oldest = kept_since(now, retention_days)
        start = max(oldest, now - timedelta(days=RANGES[chosen.get("range", DEFAULT_RANGE)]))
        end = newest = now + timedelta(minutes=5)  # clocks of several hosts differ
        if self.span:
            since, until = self.span
            start, end = max(since or oldest, oldest), min(until or newest, newest)
        found = Filters(
            start=start,
            end=end,
            stage=chosen.get("stage", ""),
            model=chosen.get("model", ""),
            status=chosen.get("status", ""),
            key_id=parse_id(chosen.get("key", "")),
            user_id=int(chosen["member"]) if "member" in chosen else None,
            tag=chosen.get("tag", ""),
            is_planned=chosen.get("planned") == "1",
            error_code=chosen.get("code", ""),
            id_part=chosen.get("id", ""),
        )
        return found.narrowed(self.conditions).around_id(oldest)


def _moment(text: str) -> str:
    """Return a time in ISO 8601 as UTC. Raises ValidationError for anything else."""
    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
        in_utc = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise forms.ValidationError(_("That isn't a date."))
    return in_utc.isoformat().replace("+00:00", "Z")


def filter_form(tenant: Tenant, query: QueryDict) -> LogFilterForm:
    """The log's filters, with the organization's own models, keys and members to choose from."""
    keys = {str(pk): label for pk, label in key_labels_of(tenant.organization).items()}
    key_names = [(str(pk), name) for pk, name in key_names_of(tenant.organization).items()]
    memberships = tenant.organization.memberships.select_related("user").order_by("user__email")[:MAX_MEMBERS]
    users = [(str(each.user_id), each.user) for each in memberships]
    names = Names.of(key_names, [(pk, name) for pk, user in users for name in (user.email, user.name) if name])
    people = {pk: user.name or user.email for pk, user in users}
    models = {name: name for name in sorted(directory.current().prices)}
    # A deleted key, a former member or a model that has ended still has requests.
    given = {name: query.get(name, "") for name in ("model", "key", "member")}
    if _MODEL.fullmatch(given["model"]):
        models.setdefault(given["model"], given["model"])
    if parse_id(given["key"]):
        keys.setdefault(given["key"], show.id_short(given["key"]))
    if _MEMBER.fullmatch(given["member"]):
        people.setdefault(given["member"], given["member"])
    return LogFilterForm(query, models=list(models), keys=list(keys.items()), members=list(people.items()), names=names)
