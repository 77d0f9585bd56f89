"""Services that write versions of the configuration; each is in force in every process seconds after its commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import unified_diff

from django.db import connection, transaction

from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.schema import parse

# Any number that nothing else in this database uses for an advisory lock.
_LOCK = 0x63617461  # "cata"


def apply(text: str, *, author: str, note: str = "") -> ConfigVersion:
    """Put an operator's text in force. One transaction. Raises CatalogueError with every problem of the text."""
    version = parse(text, source="operator edit").version
    with writing():
        return ConfigVersion.objects.create(
            text=text, version=version, source=ConfigVersion.Source.OPERATOR, author=author, note=note
        )


def roll_back(to: ConfigVersion, *, author: str) -> ConfigVersion:
    """Put an earlier version in force again, as a new one. One transaction.

    Raises CatalogueError when its text no longer passes validation.
    """
    version = parse(to.text, source=f"version {to.pk}").version
    with writing():
        return ConfigVersion.objects.create(
            text=to.text,
            version=version,
            source=ConfigVersion.Source.OPERATOR,
            author=author,
            note=f"Back to version {to.pk}",
            rollback_of=to,
        )


def record_file(text: str, *, version: str) -> ConfigVersion | None:
    """Put a server's changed file in force, once, even if several processes saw the change. One transaction.

    Only the web process calls it, by `directory.serve`. Returns None when the file's last recorded text is this one.
    Two nodes whose files differ record one row at each start; they do not take turns, because a process records only
    when its own file changes.
    """
    with writing():
        last = ConfigVersion.objects.filter(source=ConfigVersion.Source.FILE).first()
        if last is not None and last.text == text:
            return None
        return ConfigVersion.objects.create(text=text, version=version, source=ConfigVersion.Source.FILE)


def diff(old_text: str, new_text: str) -> str:
    """Compare two texts as a unified diff; empty when nothing differs."""
    lines = unified_diff(old_text.splitlines(), new_text.splitlines(), "old", "new", lineterm="")
    return "\n".join(lines)


@contextmanager
def writing() -> Iterator[None]:
    """Open a transaction in which no other process adds a version."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        yield
