"""manage.py catalogue: list, compare, apply and roll back versions of the configuration."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from typing_extensions import override

from codexflow.catalogue import services
from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.schema import CatalogueError, parse

AUTHOR = "command line"


class Command(BaseCommand):
    help = "Check, show, compare, apply and roll back versions of models.yaml."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("check", help="list every problem of a file").add_argument("file", type=Path)
        actions.add_parser("show", help="print the newest version")
        actions.add_parser("versions", help="list versions, newest first").add_argument("--limit", type=int, default=20)
        actions.add_parser("diff", help="what changed from a version to the newest").add_argument("id", type=int)
        apply = actions.add_parser("apply", help="put a file in force as an operator's edit")
        apply.add_argument("file", type=Path)
        apply.add_argument("--note", default="")
        actions.add_parser("rollback", help="put an earlier version in force again").add_argument("id", type=int)

    @override
    def handle(self, *, action: str, **options: Any) -> str:
        try:
            match action:
                case "check":
                    return self.check_file(options["file"])
                case "show":
                    return self.show(self.newest())
                case "versions":
                    return self.versions(options["limit"])
                case "diff":
                    return self.diff(self.version(options["id"]), self.newest())
                case "apply":
                    text = self.read(options["file"])
                    made = services.apply(text, author=AUTHOR, note=options["note"])
                    return f"Version {made} is in force."
                case _:
                    made = services.roll_back(self.version(options["id"]), author=AUTHOR)
                    return f"Version {made} is in force: {made.note.lower()}."
        except CatalogueError as exc:
            raise CommandError(str(exc)) from exc

    def check_file(self, file: Path) -> str:
        found = parse(self.read(file), source=file.name)
        return (
            f"{file.name} is good: version {found.version}, {len(found.models)} models, {len(found.aliases)} aliases."
        )

    def show(self, version: ConfigVersion) -> str:
        self.stdout.write(version.text)
        return f"Version {version}, from {version.get_source_display()}, {version.created_at:%Y-%m-%d %H:%M} UTC."

    def versions(self, limit: int) -> str:
        for row in ConfigVersion.objects.defer("text")[:limit]:
            author = row.author or row.get_source_display()
            self.stdout.write(f"{row.pk:>6}  {row.version}  {row.created_at:%Y-%m-%d %H:%M} UTC  {author}  {row.note}")
        return f"{ConfigVersion.objects.count()} versions."

    def diff(self, old: ConfigVersion, new: ConfigVersion) -> str:
        changes = services.diff(old.text, new.text)
        if changes:
            self.stdout.write(changes)
        return f"From version {old} to version {new}."

    def read(self, file: Path) -> str:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise CommandError(f"{file}: cannot be read ({exc})") from exc

    def newest(self) -> ConfigVersion:
        row = ConfigVersion.objects.first()
        if row is None:
            raise CommandError("No version has been recorded yet: start the server or apply a file.")
        return row

    def version(self, pk: int) -> ConfigVersion:
        try:
            return ConfigVersion.objects.get(pk=pk)
        except ConfigVersion.DoesNotExist as exc:
            raise CommandError(f"There is no version {pk}.") from exc
