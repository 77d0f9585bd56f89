"""manage.py measure_inference: accuracy of stage inference on labelled prompts."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from typing_extensions import override

from codexflow.catalogue import schema
from routing.inference import evaluation


class Command(BaseCommand):
    help = "Measure the accuracy of stage inference, per stage and language, and list its mistakes."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--set", choices=evaluation.SETS, default="labelled", help="a set that comes with CodexFlow")
        which.add_argument(
            "--file", type=Path, help="prompts of your own, in the form of routing/inference/prompts/labelled.yaml"
        )
        parser.add_argument("--time", action="store_true", help="also measure the time for a prompt of 2 KB")
        parser.add_argument("--config", type=Path, default=settings.ENV.config_path, help="the models.yaml to measure")

    @override
    def handle(self, *args: Any, **options: Any) -> str:
        file = options["file"] or evaluation.SETS[options["set"]]
        try:
            config = schema.parse(_read(options["config"]), source=options["config"].name).inference
            prompts = evaluation.parse(_read(file), source=file.name)
        except (schema.CatalogueError, evaluation.LabelledError) as exc:
            raise CommandError(str(exc)) from exc
        found = evaluation.infer_all(prompts, config)
        for line in evaluation.report(found):
            self.stdout.write(line)
        if options["time"]:
            took_us = evaluation.timed_us(prompts, config)
            self.stdout.write(f"2 KB: median {took_us[len(took_us) // 2]:.1f} µs, slowest {took_us[-1]:.1f} µs\n")
        return (
            f"{sum(each.is_right for each in found)} of {len(found)} right: {100 * evaluation.accuracy(found):.1f} %."
        )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandError(f"{file}: cannot be read ({exc})") from exc
