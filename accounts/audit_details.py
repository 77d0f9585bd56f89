"""Facts of audit entries in words: what was changed, from what to what. Pure but for the reader's language and zone."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Field, Model
from django.db.models.options import Options
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Membership
from codexflow.templatetags import show

# Names of facts as the code records them -> label. Others are shown by their own name.
LABELS: dict[str, str | Promise] = {
    "allowed_models": gettext_lazy("Models"),
    "allowed_networks": gettext_lazy("Allowed IPs"),
    "allowed_stages": gettext_lazy("Stages"),
    "allowed_surfaces": gettext_lazy("APIs"),
    "amount_nanos": gettext_lazy("Amount"),
    "balance_after_nanos": gettext_lazy("Balance"),
    "brand": gettext_lazy("Card"),
    "budget_day_nanos": gettext_lazy("Daily budget"),
    "budget_month_nanos": gettext_lazy("Monthly budget"),
    "code": gettext_lazy("Code"),
    "concurrent_streams": gettext_lazy("Concurrent streams"),
    "count": gettext_lazy("Number"),
    "credit_nanos": gettext_lazy("Credit"),
    "daily_requests": gettext_lazy("Requests per day"),
    "day_nanos": gettext_lazy("Daily budget"),
    "disputed_nanos": gettext_lazy("Disputed"),
    "ends_at": gettext_lazy("Ends"),
    "events": gettext_lazy("Events"),
    "expires_at": gettext_lazy("Expires"),
    "fields": gettext_lazy("Fields"),
    "goes_on": gettext_lazy("Continues after the trial"),
    "invoice": gettext_lazy("Invoice"),
    "is_active": gettext_lazy("Active"),
    "is_hard": gettext_lazy("Refuses requests over the budget"),
    "is_on": gettext_lazy("On"),
    "keeps_keys": gettext_lazy("Keys kept"),
    "key": gettext_lazy("Key"),
    "kind": gettext_lazy("Kind"),
    "month_limit_nanos": gettext_lazy("Monthly limit"),
    "month_nanos": gettext_lazy("Monthly budget"),
    "name": gettext_lazy("Name"),
    "new": gettext_lazy("Name"),
    "number": gettext_lazy("Document"),
    "order": gettext_lazy("Order code"),
    "overlap_s": gettext_lazy("Both keys work for"),
    "payment_reference": gettext_lazy("Reference"),
    "pays_renewals": gettext_lazy("Pays renewals"),
    "place": gettext_lazy("Place"),
    "plan": gettext_lazy("Plan"),
    "plan_after": gettext_lazy("Plan"),
    "reason": gettext_lazy("Reason"),
    "reference": gettext_lazy("Reference"),
    "refunded_nanos": gettext_lazy("Refunded"),
    "renews": gettext_lazy("Renews"),
    "role": gettext_lazy("Role"),
    "rpm": gettext_lazy("Requests per minute"),
    "saves_card": gettext_lazy("Card saved"),
    "stopped": gettext_lazy("Reason"),
    "successor": gettext_lazy("Successor"),
    "tag": gettext_lazy("Tag"),
    "threshold_nanos": gettext_lazy("Top up below"),
    "to_days": gettext_lazy("Days"),
    "total_cents": gettext_lazy("Total"),
    "tpm": gettext_lazy("Tokens per minute"),
    "until": gettext_lazy("Until"),
    "url": gettext_lazy("Address"),
    "window": gettext_lazy("Period"),
}
# Facts of which one is what the other was before.
_PAIRS = {
    "new": "old",
    "after": "before",
    "name": "old_name",
    "to_days": "from_days",
    "plan_after": "plan_before",
    "balance_after_nanos": "balance_before_nanos",
}
_OF_ROLES = ("member.", "membership.", "invitation.")


def details_of(action: str, facts: Mapping[str, Any], target: type[Model] | None = None) -> list[str]:
    """Return sentences such as "Role: Developer → Viewer"; empty facts are left out.

    `target` is the model of what was acted on: it labels its fields and their choices.
    """
    return list(_details(action, _labelled(facts, target._meta) if target else facts))


def _labelled(facts: Mapping[str, Any], meta: "Options[Any]") -> dict[str, Any]:
    """Return the facts with the labels of choices in place of their values, and of fields in place of their names."""
    fields = {field.name: field for field in meta.fields}
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if name == "fields" and isinstance(value, list):
            found[name] = [_field_label(fields[each]) if each in fields else each for each in value]
        elif isinstance(value, str) and name in fields:
            found[name] = str(dict(fields[name].flatchoices).get(value, value))
        else:
            found[name] = value
    return found


def _field_label(field: Field[Any, Any]) -> str:
    if field.name in LABELS:
        return str(LABELS[field.name])
    return str(field.verbose_name).partition(" (")[0]  # without the unit


def _details(action: str, facts: Mapping[str, Any]) -> Iterator[str]:
    told = {before for after, before in _PAIRS.items() if after in facts}
    if "total_cents" in facts:  # amounts were in dollars before their currency was recorded
        amount = show.money(facts["total_cents"], facts.get("currency", "USD"))
        facts = {**facts, "total_cents": amount}
        told.add("currency")
    for name, value in facts.items():
        if name in told:
            continue
        before = _PAIRS.get(name)
        if before is not None and before in facts:
            if facts[before] != value:
                yield _change(action, name, facts[before], value)
        elif isinstance(value, Mapping):  # each with the values that it had and has
            for field, each in value.items():
                if isinstance(each, Mapping) and {"old", "new"} <= each.keys():
                    yield _change(action, field, each["old"], each["new"])
                else:
                    yield _line(action, field, each)
        elif value not in ("", None):
            yield _line(action, name, value)


def _change(action: str, name: str, old: Any, new: Any) -> str:
    is_role = name == "new" and action.startswith(_OF_ROLES)
    label = _("Role") if is_role else _label(name)
    shown = [_shown("role" if is_role else name, value) for value in (old, new)]
    return f"{label}: {shown[0]} → {shown[1]}"


def _line(action: str, name: str, value: Any) -> str:
    return _label(name) if value is None else f"{_label(name)}: {_shown(name, value)}"


def _label(name: str) -> str:
    return str(LABELS.get(name, name.replace("_", " ")))


def _shown(name: str, value: Any) -> str:
    if value is None or value == "":
        return "—"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or _("all")
    if isinstance(value, int):
        return _number(name, value)
    text = str(value)
    if name == "role":
        return str(dict(Membership.Role.choices).get(text, text))
    if name.endswith("_at") or name == "until":
        return _moment(text)
    return show.id_short(text) if _is_id(text) else text


def _number(name: str, value: int) -> str:
    if name.endswith("_nanos"):
        return show.usd_price(value)
    if name.endswith("_s"):
        return show.lasting(timedelta(seconds=value)) if value else "—"
    return show.count(value)


def _moment(text: str) -> str:
    try:
        return show.zoned(datetime.fromisoformat(text))
    except ValueError:
        return text


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
