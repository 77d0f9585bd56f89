"""The meters of an organization for the frame of its pages: read once in a while, and put into words."""

from dataclasses import dataclass
from datetime import datetime

from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.permissions import Action
from accounts.tenancy import Tenant
from billing.alerts import CREDIT, DAY, MONTH
from billing.meters import KEY, ORGANIZATION, REQUESTS, TAG, Meter, nearest, warned
from billing.models import Account
from billing.plans import UNLIMITED
from billing.selectors import spend_of, tag_budgets_of, watched_of, watched_tags
from billing.services import limits_of
from codexflow.lib.cache import cached
from codexflow.templatetags import show
from keys.selectors import key_meters_of

# Pages follow each other quickly, and a warning may be some seconds late.
CACHE_TTL_S = 10

NEAR: dict[tuple[str, str], Promise] = {
    (ORGANIZATION, CREDIT): _("{percent} of the credit is used: {used} of {limit}."),
    (ORGANIZATION, REQUESTS): _("{percent} of today's requests are used: {used} of {limit}."),
    (ORGANIZATION, DAY): _("{percent} of the daily budget is used: {used} of {limit}."),
    (ORGANIZATION, MONTH): _("{percent} of the monthly budget is used: {used} of {limit}."),
    (KEY, REQUESTS): _("Key {name}: {percent} of today's requests are used: {used} of {limit}."),
    (KEY, DAY): _("Key {name}: {percent} of the daily budget is used: {used} of {limit}."),
    (KEY, MONTH): _("Key {name}: {percent} of the monthly budget is used: {used} of {limit}."),
    (TAG, DAY): _("Tag {name}: {percent} of the daily budget is used: {used} of {limit}."),
    (TAG, MONTH): _("Tag {name}: {percent} of the monthly budget is used: {used} of {limit}."),
}
USED_UP: dict[tuple[str, str], Promise] = {
    (ORGANIZATION, CREDIT): _("The credit of {limit} is used up. Requests are refused until you add credit."),
    (ORGANIZATION, REQUESTS): _("All {limit} requests of today are used. Requests are refused until midnight UTC."),
    (ORGANIZATION, DAY): _("The daily budget of {limit} is used up. Requests are refused until midnight UTC."),
    (ORGANIZATION, MONTH): _("The monthly budget of {limit} is used up. Requests are refused until the 1st (UTC)."),
    (KEY, REQUESTS): _("Key {name}: all {limit} requests of today are used. It is refused until midnight UTC."),
    (KEY, DAY): _("Key {name}: the daily budget of {limit} is used up. It is refused until midnight UTC."),
    (KEY, MONTH): _("Key {name}: the monthly budget of {limit} is used up. It is refused until the 1st (UTC)."),
    (TAG, DAY): _("Tag {name}: the daily budget of {limit} is used up. It is refused until midnight UTC."),
    (TAG, MONTH): _("Tag {name}: the monthly budget of {limit} is used up. It is refused until the 1st (UTC)."),
}
# Soft budgets of tags refuse nothing.
EXCEEDED: dict[str, Promise] = {
    DAY: _("Tag {name}: the daily budget of {limit} is exceeded ({percent})."),
    MONTH: _("Tag {name}: the monthly budget of {limit} is exceeded ({percent})."),
}
# For the sidebar, below the plan's name.
SHORT: dict[tuple[str, str], Promise] = {
    (ORGANIZATION, CREDIT): _("{used} of {limit} credit used"),
    (ORGANIZATION, REQUESTS): _("{used} of {limit} requests today (UTC)"),
    (ORGANIZATION, DAY): _("{used} of {limit} daily budget"),
    (ORGANIZATION, MONTH): _("{used} of {limit} monthly budget"),
    (KEY, REQUESTS): _("Key {name}: {used} of {limit} requests today (UTC)"),
    (KEY, DAY): _("Key {name}: {used} of {limit} daily budget"),
    (KEY, MONTH): _("Key {name}: {used} of {limit} monthly budget"),
    (TAG, DAY): _("Tag {name}: {used} of {limit} daily budget"),
    (TAG, MONTH): _("Tag {name}: {used} of {limit} monthly budget"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """One warning of a page: the meter, and the page that leads out."""

    meter: Meter
    more: int  # keys or tags that are near their limits as well
    text: str
    url: str
    way_out: Promise | str


def meters_of(account: Account, at: datetime) -> list[Meter]:
    """Return all meters of an organization, some seconds old. A change of plan, credit or budgets counts at once."""
    state = f"{account.plan_id}:{account.credit_nanos}:{account.budget_day_nanos}:{account.budget_month_nanos}"
    key = f"meters:{account.pk}:{at.date()}:{state}"
    return cached(key, lambda: _read(account, at), seconds=CACHE_TTL_S)


def _read(account: Account, at: datetime) -> list[Meter]:
    organization, today = account.organization, at.date()
    found = [Meter(kind=each.kind, used=each.used_nanos, limit=each.limit_nanos) for each in watched_of(account, today)]
    daily_requests = limits_of(account).daily_requests
    if daily_requests != UNLIMITED:
        used = spend_of(organization, today, today).requests
        found.append(Meter(kind=REQUESTS, used=used, limit=daily_requests))
    found += key_meters_of(organization, at)
    for tag in watched_tags(tag_budgets_of(organization), today):
        found += [
            Meter(
                kind=each.kind,
                used=each.used_nanos,
                limit=each.limit_nanos,
                owner=TAG,
                name=tag.budget.tag,
                owner_id=str(tag.budget.pk),
                stops=tag.budget.is_hard,
            )
            for each in tag.windows
        ]
    return found


def visible(meters: list[Meter], tenant: Tenant) -> list[Meter]:
    """Leave out amounts of money for roles that do not see billing."""
    return meters if tenant.allows(Action.SEE_BILLING) else [each for each in meters if not each.is_money]


def shown_nearest(meters: list[Meter]) -> tuple[Meter, str] | None:
    """Return the nearest meter with its words for the sidebar."""
    found = nearest(meters)
    return None if found is None else (found, _worded(SHORT[found.owner, found.kind], found))


def warnings_of(meters: list[Meter], tenant: Tenant) -> list[Banner]:
    """Return the banners of a page, the most urgent first."""
    return [
        Banner(meter=meter, more=more, text=_sentence(meter), url=url, way_out=way_out)
        for meter, more in warned(meters)
        for url, way_out in [_way_out(meter, tenant)]
    ]


def _sentence(meter: Meter) -> str:
    if not meter.is_used_up:
        return _worded(NEAR[meter.owner, meter.kind], meter)
    return _worded(USED_UP[meter.owner, meter.kind] if meter.stops else EXCEEDED[meter.kind], meter)


def _worded(text: Promise, meter: Meter) -> str:
    amount = show.usd if meter.is_money else show.count
    return str(text).format(
        name=meter.name, percent=show.percent(meter.percent), used=amount(meter.used), limit=amount(meter.limit)
    )


def _way_out(meter: Meter, tenant: Tenant) -> tuple[str, Promise | str]:
    """Return the page where a member can do something about it, and what; empty where the role cannot."""
    slug = tenant.organization.slug
    if meter.owner == KEY:
        return reverse("key", args=[slug, meter.owner_id]), _("Show the key")
    if meter.owner == TAG:
        return reverse("tags", args=[slug]), _("Show budgets of tags")
    if not tenant.allows(Action.MANAGE_BILLING):
        return "", ""
    billing = reverse("billing", args=[slug])
    if meter.kind == CREDIT:
        return billing, _("Add credit")
    if meter.kind == REQUESTS:
        return billing, _("Change the plan")
    return reverse("billing-budgets", args=[slug]), _("Change the budget")
