"""Lines of the health page: each says what is not well, what customers notice, and what to do. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

Level: TypeAlias = Literal["ok", "warning", "error"]
LiteLLM: TypeAlias = Literal["answers", "refuses", "away"]

# A check runs every half minute.
CHECK_IS_LATE_S = 150
EVENTS_ARE_LATE_S = 60
EVENTS_ARE_STUCK_S = 600
JOURNAL_IS_LATE_S = 180
MEMORY_IS_SHORT, MEMORY_IS_FULL = 0.7, 0.99
FEW_PARTITIONS_DAYS = 2
AUDIT_IS_LATE_S = 2 * 86_400
# A daily backup, with room for one that begins later or takes longer.
BACKUP_IS_LATE_S = 26 * 3_600
PROOF_IS_LATE_S = 32 * 86_400
DISK_IS_SHORT_BYTES, DISK_IS_FULL_BYTES = 1 << 30, 64 << 20
CLOCK_IS_OFF_S, CLOCK_IS_WRONG_S = 2.0, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """State of one part. `effect` is what customers notice, `command` the next thing to do, `page` where to look."""

    key: str
    level: Level
    name: str
    state: str
    effect: str = ""
    command: str = ""
    page: str = ""

    @property
    def is_shell(self) -> bool:
        """True when `command` is to be typed, and not a sentence."""
        return self.command.partition(" ")[0] in ("docker", "ls", "timedatectl", "CREATE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """State of an installation, as `adminpanel/checks.py` finds it. `samples`: values by metric and labels."""

    samples: Mapping[tuple[str, tuple[str, ...]], float]
    litellm: LiteLLM
    has_second_wall: bool
    # Since a worker ran the last check; None: none ever did.
    check_age_s: float | None
    catalogue_problems: Sequence[str] = ()
    # Models in use that end soon and that nothing replaces, in words.
    ending_models: Sequence[str] = ()
    models_unknown_to_litellm: Sequence[str] = ()
    is_syncing: bool = False
    circuits_open: Sequence[str] = field(default=())
    # Backups are asked for in production only. Ages of the last one and of the last one that was proven; None: none.
    is_production: bool = False
    backup_age_s: float | None = None
    proof_age_s: float | None = None
    # Room in the folders that programs write to, in bytes; 0: nothing can be written.
    room_bytes: Mapping[str, int] = field(default_factory=dict)
    # This machine's clock against PostgreSQL's.
    clock_off_s: float = 0.0
    # Usable API keys by whether HASH_SALT or HASH_SALT_PREVIOUS is the salt that they are stored under.
    keys_known: int = 0
    keys_foreign: int = 0
    # Error of the last mail, if the mail server did not take it; None: it took it, or none was sent lately.
    mail_error: str | None = None

    def value(self, name: str, *labels: str) -> float:
        """Value of a metric; 0 when it was not read."""
        return self.samples.get((name, labels), 0.0)


def lines_of(facts: Facts) -> list[Line]:
    """All lines, the bad ones first."""
    order = {"error": 0, "warning": 1, "ok": 2}
    found = [
        _redis(facts),
        _litellm(facts),
        _circuits(facts),
        _workers(facts),
        _events(facts),
        _journal(facts),
        _disk(facts),
        _clock(facts),
        _keys(facts),
        _mail(facts),
        _partitions(facts),
        _dead_letters(facts),
        _catalogue(facts),
        _model_ends(facts),
        _wall(facts),
        _ledger(facts),
        _payments(facts),
        _reports(facts),
        _margin(facts),
        *_backups(facts),
        *_sync(facts),
    ]
    return sorted(found, key=lambda line: order[line.level])


def _redis(facts: Facts) -> Line:
    name = _("Valkey: limits and the usage stream")
    used = facts.value("redis_memory_ratio")
    if facts.value("redis_up") and used >= MEMORY_IS_FULL:
        return Line(
            key="redis",
            level="error",
            name=name,
            state=_("is full"),
            effect=_(
                "Calls that credit or a budget binds are refused (503). Others continue within a part of their limits."
            ),
            command="docker compose up -d worker beat && docker compose exec worker python manage.py preflight",
        )
    if facts.value("redis_up") and used > MEMORY_IS_SHORT:
        return Line(
            key="redis",
            level="warning",
            name=name,
            state=_("uses %(percent)d %% of its memory") % {"percent": 100 * used},
            effect=_("Nothing yet. When it is full, calls are refused."),
            command="docker compose exec worker python manage.py preflight",
        )
    if facts.value("redis_up"):
        return Line(key="redis", level="ok", name=name, state=_("answers"))
    return Line(
        key="redis",
        level="error",
        name=name,
        state=_("does not answer"),
        effect=_(
            "Calls that credit or a budget binds are refused (503). Others continue within a part of their limits."
        ),
        command="docker compose ps valkey && docker compose logs --tail 50 valkey",
    )


def _litellm(facts: Facts) -> Line:
    name = "LiteLLM"
    if facts.litellm == "refuses":
        return Line(
            key="litellm",
            level="error",
            name=name,
            state=_("refuses the gateway's key"),
            effect=_("Every call gets 503."),
            command=_("Set LITELLM_API_KEY to a key that LiteLLM knows, then: docker compose up -d web worker"),
        )
    if facts.litellm == "away":
        return Line(
            key="litellm",
            level="error",
            name=name,
            state=_("cannot be reached"),
            effect=_("Every call gets 503 and costs nothing."),
            command="docker compose ps litellm && docker compose logs --tail 50 litellm",
        )
    if facts.models_unknown_to_litellm:
        return Line(
            key="litellm",
            level="warning",
            name=name,
            state=_("does not list: %(models)s") % {"models": ", ".join(facts.models_unknown_to_litellm)},
            effect=_("Calls of these models are answered by the next model of their stage, or fail."),
            command=_("Add them to config/litellm.yaml, or take them out of config/models.yaml."),
        )
    return Line(key="litellm", level="ok", name=name, state=_("answers"))


def _circuits(facts: Facts) -> Line:
    name = _("Circuits of models")
    if not facts.circuits_open:
        return Line(key="circuits", level="ok", name=name, state=_("all closed"))
    return Line(
        key="circuits",
        level="warning",
        name=name,
        state=_("open: %(models)s") % {"models": ", ".join(facts.circuits_open)},
        effect=_("The next model of the stage answers in their place; who asked for exactly these gets 503."),
        command="docker compose logs --since 10m web | grep upstream",
    )


def _workers(facts: Facts) -> Line:
    name = _("Workers and beat")
    if facts.check_age_s is None:
        return Line(
            key="workers",
            level="warning",
            name=name,
            state=_("have not begun yet"),
            effect=_("The log and the dashboard are empty until they do."),
            command="docker compose up -d worker beat",
        )
    if facts.check_age_s < CHECK_IS_LATE_S:
        return Line(key="workers", level="ok", name=name, state=_("at work"))
    return Line(
        key="workers",
        level="error",
        name=name,
        state=_("have done nothing for minutes"),
        effect=_("Calls continue. The log, the dashboard, mails, invoices and payments wait; nothing is lost."),
        command="docker compose restart worker beat && docker compose logs --tail 50 worker beat",
    )


def _events(facts: Facts) -> Line:
    name, age_s = _("Usage that is not stored yet"), facts.value("usage_oldest_event_seconds")
    waiting = int(facts.value("usage_events_waiting"))
    state = ngettext("%(count)d call waits", "%(count)d calls wait", waiting) % {"count": waiting}
    if age_s < EVENTS_ARE_LATE_S:
        return Line(key="events", level="ok", name=name, state=state)
    return Line(
        key="events",
        level="error" if age_s >= EVENTS_ARE_STUCK_S else "warning",
        name=name,
        state=_("%(calls)s, the oldest for %(minutes)d min.") % {"calls": state, "minutes": age_s // 60},
        effect=_("Requests appear late in the log and the dashboard. Limits and money are right all the same."),
        command="docker compose logs --tail 50 worker",
    )


def _journal(facts: Facts) -> Line:
    name, age_s = _("Journal"), facts.value("journal_oldest_seconds")
    if bad := int(facts.value("journal_segments", "bad")):
        return Line(
            key="journal",
            level="error",
            name=name,
            state=ngettext("%(count)d file cannot be read", "%(count)d files cannot be read", bad) % {"count": bad},
            effect=_("Calls of a process that died may be charged by an estimate."),
            command="ls -l /var/lib/codexflow/journal/*.bad",
        )
    if age_s >= JOURNAL_IS_LATE_S:
        return Line(
            key="journal",
            level="warning",
            name=name,
            state=_("a file waits for %(minutes)d min.") % {"minutes": age_s // 60},
            effect=_("None, as long as the disk is kept."),
            command="docker compose logs --tail 50 web | grep journal",
        )
    return Line(key="journal", level="ok", name=name, state=_("shipped"))


def _disk(facts: Facts) -> Line:
    name = _("Disk")
    folder, room = min(facts.room_bytes.items(), key=lambda each: each[1], default=("", DISK_IS_SHORT_BYTES))
    if room >= DISK_IS_SHORT_BYTES:
        return Line(key="disk", level="ok", name=name, state=_("has room"))
    is_full = room < DISK_IS_FULL_BYTES
    said = _("%(folder)s has %(mib)d MiB left") if room else _("nothing can be written to %(folder)s")
    return Line(
        key="disk",
        level="error" if is_full else "warning",
        name=name,
        state=said % {"folder": folder, "mib": room >> 20},
        effect=_("Calls continue, but what Valkey loses now is lost. Exports fail.")
        if is_full
        else _("Nothing yet. When it is full, exports fail and the journal is not written."),
        command="docker compose exec web df -h /var/lib/codexflow",
    )


def _clock(facts: Facts) -> Line:
    name, off_s = _("Clock"), facts.clock_off_s
    if abs(off_s) < CLOCK_IS_OFF_S:
        return Line(key="clock", level="ok", name=name, state=_("right"))
    return Line(
        key="clock",
        level="error" if abs(off_s) > CLOCK_IS_WRONG_S else "warning",
        name=name,
        state=_("differs from PostgreSQL's by %(seconds)s s") % {"seconds": f"{off_s:+.0f}"},
        effect=_("Times in the log are wrong; codes of authenticator apps and notices of payments may be refused."),
        command="timedatectl set-ntp true",
    )


def _keys(facts: Facts) -> Line:
    name, foreign = _("API keys and HASH_SALT"), facts.keys_foreign
    if not foreign:
        return Line(key="keys", level="ok", name=name, state=_("fit together"))
    return Line(
        key="keys",
        level="warning" if facts.keys_known else "error",
        name=name,
        state=ngettext(
            "%(count)d key is stored under another HASH_SALT",
            "%(count)d keys are stored under another HASH_SALT",
            foreign,
        )
        % {"count": foreign},
        effect=_("Their calls get 401."),
        command=_("Set that one as HASH_SALT_PREVIOUS, then: docker compose up -d"),
    )


def _mail(facts: Facts) -> Line:
    name = _("Mail server")
    if facts.mail_error is None:
        return Line(key="mail", level="ok", name=name, state=_("no mail has failed"))
    return Line(
        key="mail",
        level="warning",
        name=name,
        state=_("the last mail was not taken: %(error)s") % {"error": facts.mail_error},
        effect=_("Addresses cannot be verified and passwords cannot be reset; invoices and warnings do not arrive."),
        command="docker compose exec worker python manage.py preflight",
    )


def _partitions(facts: Facts) -> Line:
    name = _("Partitions of the log")
    ahead, strays = int(facts.value("partition_days_ahead")), int(facts.value("partition_stray_rows"))
    state = ngettext("%(count)d day ahead", "%(count)d days ahead", ahead) % {"count": ahead}
    if ahead >= FEW_PARTITIONS_DAYS and not strays:
        return Line(key="partitions", level="ok", name=name, state=state)
    if strays:
        state = ngettext("%(count)d row without a partition", "%(count)d rows without a partition", strays)
        state %= {"count": strays}
    return Line(
        key="partitions",
        level="warning",
        name=name,
        state=state,
        effect=_("None yet; the log becomes slow when rows pile up without a partition."),
        command="docker compose logs --since 2h worker | grep partition",
    )


def _dead_letters(facts: Facts) -> Line:
    name, count = _("Dead letters"), int(facts.value("dead_letters"))
    if not count:
        return Line(key="dead_letters", level="ok", name=name, state=_("none"))
    return Line(
        key="dead_letters",
        level="error",
        name=name,
        state=ngettext("%(count)d could not be stored", "%(count)d could not be stored", count) % {"count": count},
        effect=_("These calls are in no log and not charged."),
        command=_("Read the reasons, fix the cause, and store them again."),
        page="dead_letters",
    )


def _catalogue(facts: Facts) -> Line:
    name = _("Models and prices")
    if not facts.catalogue_problems:
        return Line(key="catalogue", level="ok", name=name, state=_("in force as written"))
    return Line(
        key="catalogue",
        level="warning",
        name=name,
        state="; ".join(facts.catalogue_problems[:3]),
        effect=_("The last good version stays in force."),
        command="docker compose exec web python manage.py catalogue check config/models.yaml",
        page="catalogue",
    )


def _model_ends(facts: Facts) -> Line:
    name = _("Models that end")
    if not facts.ending_models:
        return Line(key="model_ends", level="ok", name=name, state=_("none without a successor"))
    return Line(
        key="model_ends",
        level="warning",
        name=name,
        state="; ".join(facts.ending_models[:3]),
        effect=_("Their calls fail from that day on."),
        command=_("Name a successor in config/models.yaml."),
        page="catalogue",
    )


def _wall(facts: Facts) -> Line:
    name = _("Row-level security")
    if facts.has_second_wall:
        return Line(key="wall", level="ok", name=name, state=_("in force"))
    return Line(
        key="wall",
        level="error",
        name=name,
        state=_("missing"),
        effect=_("None. A mistake in one of our queries would not be caught by the database."),
        command="CREATE ROLE cfx_tenant NOLOGIN; GRANT cfx_tenant TO codexflow;  -- then: manage.py migrate",
    )


def _ledger(facts: Facts) -> Line:
    name, findings = _("Ledger"), int(facts.value("ledger_audit_findings"))
    if findings:
        return Line(
            key="ledger",
            level="error",
            name=name,
            state=ngettext("%(count)d sum is wrong", "%(count)d sums are wrong", findings) % {"count": findings},
            effect=_("A balance or an invoice may be wrong."),
            command="docker compose exec web python manage.py audit_ledger",
        )
    if facts.value("ledger_audit_age_seconds") > AUDIT_IS_LATE_S:
        return Line(
            key="ledger",
            level="warning",
            name=name,
            state=_("not proven for two days"),
            effect=_("None."),
            command="docker compose exec web python manage.py audit_ledger",
        )
    return Line(key="ledger", level="ok", name=name, state=_("adds up"))


def _payments(facts: Facts) -> Line:
    name, failed = _("Payments"), int(facts.value("payment_events_failed"))
    if not failed:
        return Line(key="payments", level="ok", name=name, state=_("booked"))
    return Line(
        key="payments",
        level="warning",
        name=name,
        state=ngettext("%(count)d event has failed", "%(count)d events have failed", failed) % {"count": failed},
        effect=_("A customer may have paid without getting credit yet."),
        command=_("Read the reason in the inbox, and let it be handled again."),
        page="payments",
    )


def _reports(facts: Facts) -> Line:
    name, count = _("LiteLLM reports without an owner"), int(facts.value("unmatched_reports", "unmatched"))
    if not count:
        return Line(key="reports", level="ok", name=name, state=_("none"))
    return Line(
        key="reports",
        level="warning",
        name=name,
        state=ngettext("%(count)d report", "%(count)d reports", count) % {"count": count},
        effect=_("Calls past the gateway are missing in their owners' logs."),
        command=_("Map them to a key."),
        page="reports",
    )


def _margin(facts: Facts) -> Line:
    name, count = _("Margin"), int(facts.value("margin_losing_models", "1"))
    if not count:
        return Line(key="margin", level="ok", name=name, state=_("no model below its cost"))
    return Line(
        key="margin",
        level="warning",
        name=name,
        state=ngettext("%(count)d model below its cost", "%(count)d models below their cost", count) % {"count": count},
        effect=_("None. You pay more for these calls than you charge."),
        command="docker compose exec web python manage.py catalogue import-prices",
        page="margin",
    )


def _backups(facts: Facts) -> Iterator[Line]:
    if not facts.is_production:
        return
    name = _("Backups")
    write = "docker compose exec -T web python manage.py backup - > codexflow-$(date +%F).zip"
    age_s, proof_s = facts.backup_age_s, facts.proof_age_s
    if age_s is None or age_s > BACKUP_IS_LATE_S:
        yield Line(
            key="backups",
            level="warning",
            name=name,
            state=_("none yet") if age_s is None else _("the last one is %(hours)d h old") % {"hours": age_s // 3_600},
            effect=_("None. What came since would be lost with the disk."),
            command=write,
        )
    elif proof_s is None or proof_s > PROOF_IS_LATE_S:
        yield Line(
            key="backups",
            level="warning",
            name=name,
            state=_("written, but none was proven within a month"),
            effect=_("None. It is unknown whether it can be restored."),
            command="docker compose exec web python manage.py restore FILE --verify",
        )
    else:
        yield Line(key="backups", level="ok", name=name, state=_("written and proven"))


def _sync(facts: Facts) -> Iterator[Line]:
    if not facts.is_syncing:
        return
    name = _("Sync with LiteLLM's log")
    if facts.value("sync_success") or not any(key == "sync_success" for key, _labels in facts.samples):
        yield Line(key="sync", level="ok", name=name, state=_("up to date"))
        return
    yield Line(
        key="sync",
        level="warning",
        name=name,
        state=_("the last run failed"),
        effect=_("Costs of the upstream and calls past the gateway appear late."),
        command=_("Read the error of the last run."),
        page="sync",
    )
