"""manage.py catalogue: list, compare, apply and roll back versions of the configuration."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, transaction
from typing_extensions import override

from accounts.audit import record
from codexflow.catalogue import services
from codexflow.catalogue.ends import NOTICE_DAYS, ends_of
from codexflow.catalogue.lineup import lineup_of
from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.price_import import BadPrices, compare, costs_by_name, with_prices
from codexflow.catalogue.schema import CatalogueError, parse
from codexflow.lib import clock
from codexflow.lib.arguments import day, line, whole_number
from codexflow.lib.money import format_usd
from keys.selectors import policies_naming_models

AUTHOR = "command line"


class Command(BaseCommand):
    help = "Check, show, compare, apply and roll back versions of models.yaml."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        check = actions.add_parser("check", help="list every problem of a file, and the models that end soon")
        check.add_argument("file", type=Path)
        check.add_argument("--date", type=day, help="check as on this day (UTC); by default today")
        actions.add_parser("show", help="print the newest version")
        versions = actions.add_parser("versions", help="list versions, newest first")
        versions.add_argument("--limit", type=whole_number(least=1, most=10_000), default=20)
        version_id = whole_number(least=1, most=2**63 - 1)
        diff = actions.add_parser("diff", help="what changed from a version to the newest")
        diff.add_argument("id", type=version_id)
        apply = actions.add_parser("apply", help="put a file in force as an operator's edit")
        apply.add_argument("file", type=Path)
        apply.add_argument("--note", type=line(most=500))
        importer = actions.add_parser("import-prices", help="compare prices with LiteLLM's, and take them over")
        importer.add_argument("--map", type=Path, help="LiteLLM's price map as a file; default: its /model/info")
        importer.add_argument("--take", action="store_true", help="put LiteLLM's prices in force as an operator's edit")
        rollback = actions.add_parser("rollback", help="put an earlier version in force again")
        rollback.add_argument("id", type=version_id)

    @override
    def handle(self, *, action: str, **options: Any) -> str:
        try:
            match action:
                case "check":
                    return self.check_file(options["file"], options["date"] or clock.now().date())
                case "show":
                    return self.show(self.newest())
                case "versions":
                    return self.versions(options["limit"])
                case "diff":
                    return self.diff(self.version(options["id"]), self.newest())
                case "import-prices":
                    return self.import_prices(options["map"], take=options["take"])
                case "apply":
                    text = self.read(options["file"])
                    return f"Version {self.apply(text, note=options['note'] or '')} is in force."
                case _:
                    made = self.roll_back(self.version(options["id"]))
                    return f"Version {made} is in force: {made.note.lower()}."
        except CatalogueError as exc:
            raise CommandError(str(exc)) from exc

    def check_file(self, file: Path, today: date) -> str:
        """Fail on problems, and when a model in use ends within the notice without a successor that stays."""
        found = parse(self.read(file), source=file.name)
        ends = ends_of(lineup_of(found, today), today, self.policies())
        for end in ends:
            self.stdout.write(f"{'note' if end.is_covered else 'warning'}: {end}")
        if ending := [end.model for end in ends if not end.is_covered]:
            raise CommandError(
                f"{file.name}: {', '.join(ending)} must be replaced: the provider ends them within {NOTICE_DAYS} days,"
                f" or has, and no successor that stays is named."
            )
        return (
            f"{file.name} is good: version {found.version}, {len(found.models)} models, {len(found.aliases)} aliases."
        )

    def policies(self) -> dict[str, tuple[str, ...]]:
        """Keys and plans that name models; none without a database, which a check does not need."""
        try:
            return policies_naming_models()
        except Error:
            return {}

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

    def import_prices(self, file: Path | None, *, take: bool) -> str:
        try:
            costs = costs_by_name(json.loads(self.read(file)) if file else self.model_info())
        except (ValueError, BadPrices) as exc:
            raise CommandError(f"LiteLLM's prices cannot be read: {exc}") from exc
        text = self.text_in_force()
        catalogue = parse(text, source="the configuration in force")
        found = compare(catalogue.entries, catalogue.models, costs)
        for each in found.differences:
            ours, theirs = (
                "-" if nanos is None else format_usd(nanos) for nanos in (each.ours_nanos, each.theirs_nanos)
            )
            self.stdout.write(f"{each.model:<28} {each.line:<32} {ours:>14} -> {theirs:>14}")
        for problem in found.refused:
            self.stdout.write(f"not comparable: {problem}")
        for model in found.unknown:
            self.stdout.write(f"not known to LiteLLM: {model}")
        if not found.prices:
            return "No price differs."
        if not take:
            return f"{len(found.prices)} models differ. Repeat with --take to put LiteLLM's prices in force."
        made = self.apply(with_prices(text, found.prices), note="Prices of LiteLLM")
        return f"Version {made} is in force: {len(found.prices)} models have new prices."

    def apply(self, text: str, *, note: str) -> ConfigVersion:
        with transaction.atomic():
            made = services.apply(text, author=AUTHOR, note=note)
            record("catalogue.applied", made, organization=None, actor_label=AUTHOR, note=note)
        return made

    def roll_back(self, to: ConfigVersion) -> ConfigVersion:
        with transaction.atomic():
            made = services.roll_back(to, author=AUTHOR)
            record("catalogue.rolled_back", made, organization=None, actor_label=AUTHOR, to=to.pk)
        return made

    def text_in_force(self) -> str:
        newest = ConfigVersion.objects.first()
        return newest.text if newest else self.read(settings.ENV.config_path)

    def model_info(self) -> Any:
        env = settings.ENV
        key = env.litellm_admin_key or env.litellm_api_key
        try:
            response = httpx.get(
                f"{env.litellm_url}/model/info", headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
            )
            return response.raise_for_status().json()
        except httpx.HTTPError as exc:
            raise CommandError(f"LiteLLM does not tell its models: {exc}") from exc

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
