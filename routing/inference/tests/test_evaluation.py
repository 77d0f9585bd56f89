"""Accuracy of inference on labelled prompts, and the command that measures it."""

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from codexflow.catalogue.schema import parse
from codexflow.env import REPOSITORY
from routing.inference import evaluation

SHIPPED = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="models.yaml").inference


def read(name: str) -> list[evaluation.Labelled]:
    return evaluation.parse(evaluation.SETS[name].read_text(), source=name)


@pytest.mark.parametrize(("name", "at_least", "prompts"), [("labelled", 0.95, 260), ("held-out", 0.88, 80)])
def test_inference_reaches_its_accuracy(name: str, at_least: float, prompts: int) -> None:
    found = evaluation.infer_all(read(name), SHIPPED)
    assert len(found) >= prompts
    assert evaluation.accuracy(found) >= at_least, "\n".join(evaluation.report(found))


def test_no_prompt_is_in_both_sets_or_twice() -> None:
    every = [each.prompt for name in evaluation.SETS for each in read(name)]
    assert len(every) == len(set(every))


def run(*arguments: object) -> list[str]:
    out = StringIO()
    call_command("measure_inference", *map(str, arguments), stdout=out)
    return out.getvalue().splitlines()


def test_the_command_reports_accuracy_confusion_and_mistakes(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "en:\n  review: [review it, nothing to see here]\ntr:\n  code:\n    - {text: düzelt, tools: [Edit]}\n"
    )
    lines = run("--file", own)
    assert "en review taken for code (default): nothing to see here" in lines
    assert lines[-1] == "2 of 3 right: 66.7 %."
    assert " of 85 right: " in run("--set", "held-out")[-1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[", "is not YAML"),
        ("- plan", "own.yaml: must be a mapping"),
        ("en: {}", "has no prompts"),
        ("en: {build: [x]}", "en.build: is not a stage"),
        ("en: {plan: x}", "en.plan: must be a list"),
        ("en: {plan: [{txt: x}]}", r"en.plan\[0\]: must be a text"),
        ("en: {plan: [4]}", r"en.plan\[0\]: must be a mapping"),
    ],
)
def test_an_invalid_file_is_refused_with_the_place_of_the_problem(tmp_path: Path, text: str, problem: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text)
    with pytest.raises(CommandError, match=problem):
        run("--file", own)
    with pytest.raises(CommandError, match="cannot be read"):
        run("--file", tmp_path / "absent.yaml")
