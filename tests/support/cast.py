"""Cast of the page tests: Ada is owner, Ben developer, Vic viewer; Eve is in another organization and sees nothing."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings

from accounts.models import Membership, Organization, User
from accounts.services import create_organization, set_content_retention
from billing.limiter.limits import ShardKeys
from billing.services import seed_plans
from codexflow.catalogue import directory
from codexflow.lib.ids import started_at
from keys.models import ApiKey
from keys.services import issue_key
from logs.content.codec import Content, pack
from logs.content.store import save
from logs.pipeline.drain import Entry, store
from logs.pipeline.events import UsageEvent, encode
from logs.pipeline.partitions import make_ahead
from logs.tests.factories import an_event


@dataclass(frozen=True, slots=True)
class Cast:
    """The four users, and Ada's organization with one key."""

    organization: Organization
    ada: User
    ben: User
    vic: User
    eve: User
    key: ApiKey

    @property
    def slug(self) -> str:
        return self.organization.slug


def gather() -> Cast:
    """Create plans, catalogue, users and organizations in the test database."""
    seed_plans()
    directory.load(settings.ENV.config_path)
    make_ahead()
    ada, ben, vic, eve = (
        User.objects.create_user(f"{name}@example.org", name=name.title()) for name in ("ada", "ben", "vic", "eve")
    )
    organization = create_organization(name="Analytical Engines", owner=ada)
    create_organization(name="Elsewhere", owner=eve)
    Membership.objects.create(organization=organization, user=ben, role=Membership.Role.DEVELOPER)
    Membership.objects.create(organization=organization, user=vic, role=Membership.Role.VIEWER)
    return Cast(organization, ada, ben, vic, eve, issue_key(organization, name="prod-web", created_by=ada).row)


def happened(cast: Cast, *events: UsageEvent) -> None:
    """Store requests as the worker does."""
    shard = ShardKeys.of(settings.ENV.redis_prefix, 0)
    stored = store([Entry(shard, event.request_id.bytes.hex().encode(), encode(event)) for event in events])
    assert stored.stored == len(events), stored


def keeps(cast: Cast, request_id: UUID, *, request: str = "a prompt", answer: str = "an answer", days: int = 7) -> None:
    """Turn on content retention for Ada's organization and store this request's prompt and response."""
    set_content_retention(cast.organization, days=days)
    Organization.objects.filter(pk=cast.organization.pk).update(content_kept_since=started_at(request_id))
    cast.organization.refresh_from_db()
    sides = (pack(request.encode()), pack(answer.encode()))
    assert save([Content(request_id, cast.organization.pk, *sides)]) == 1


def an_event_of(cast: Cast, **facts: Any) -> UsageEvent:
    """Build a usage event of Ada's organization."""
    return an_event(cast.organization.pk, cast.key.pk, **facts)
