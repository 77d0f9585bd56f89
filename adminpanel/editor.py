"""Edits of models.yaml on a page: checked, compared with what is in force, and applied unless somebody was faster."""

from datetime import date

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import User
from codexflow.catalogue import services
from codexflow.catalogue.ends import ends_of, stages_that_lost_their_model
from codexflow.catalogue.lineup import lineup_of
from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.schema import CatalogueError, parse
from codexflow.lib.clock import now
from keys.selectors import policies_naming_models


class Conflict(Exception):
    """Another version came into force since the edit began. `base` is the version it began from."""

    def __init__(self, base: ConfigVersion | None, newest: ConfigVersion) -> None:
        super().__init__("another version is in force")
        self.base = base
        self.newest = newest


def newest_version() -> ConfigVersion | None:
    """The version in force; None before a server recorded its file."""
    return ConfigVersion.objects.first()


def problems_of(text: str, today: date | None = None) -> tuple[list[str], list[str]]:
    """All problems of a text, and warnings of one without: models that end, and stages that lose their model."""
    try:
        catalogue = parse(text, source=_("the edit"))
    except CatalogueError as exc:
        return exc.problems, []
    today = today or now().date()
    lineup = lineup_of(catalogue, today)
    ends = ends_of(lineup, today, policies_naming_models())
    return [], [*stages_that_lost_their_model(lineup), *(str(end) for end in ends if not end.is_covered)]


def changes_of(old: str, new: str) -> list[tuple[str, str]]:
    """Lines of a comparison, each with its kind: `add`, `remove`, `place` or empty."""
    kinds = {"+": "add", "-": "remove", "@": "place"}
    return [(kinds.get(line[:1], ""), line) for line in services.diff(old, new).splitlines()[2:]]


def apply_edit(
    text: str, *, base_id: int | None, note: str, actor: User | None = None, address: str | None = None
) -> ConfigVersion:
    """Put an edit in force, in one transaction with the audit entry.

    Raises Conflict if another version came into force since `base_id`, CatalogueError for a text with problems.
    """
    with transaction.atomic(), services.writing():
        newest = newest_version()
        if newest is not None and newest.pk != base_id:
            raise Conflict(ConfigVersion.objects.filter(pk=base_id or 0).first(), newest)
        made = services.apply(text, author=actor.email if actor else "", note=note)
        audit.record("catalogue.applied", made, organization=None, actor=actor, address=address, note=note)
    return made
