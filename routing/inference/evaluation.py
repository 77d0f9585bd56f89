"""Accuracy and time of stage inference on labelled prompts."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from codexflow.catalogue.schema import STAGES, InferenceConfig
from codexflow.lib.clock import monotonic_s
from routing.inference.infer import Prompt, infer

SETS = {name: Path(__file__).parent / "prompts" / f"{name.replace('-', '_')}.yaml" for name in ("labelled", "held-out")}
_FIELDS = {"text", "system", "tools"}
TIMED_BYTES = 2048
TIMED_ROUNDS = 200


class LabelledError(Exception):
    """The text is not a valid set of labelled prompts; the message names the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A prompt and the stage that a person chose for it."""

    language: str
    stage: str
    prompt: Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """Result of inference on a labelled prompt."""

    labelled: Labelled
    stage: str
    reason: str

    @property
    def is_right(self) -> bool:
        return self.stage == self.labelled.stage


def parse(text: str, *, source: str) -> list[Labelled]:
    """Parse the prompts of a file: language -> stage -> prompts, each a text or a mapping with text, system and tools.

    Raises LabelledError for the first problem.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise LabelledError(f"{source}: is not YAML ({exc})") from exc
    found = []
    for language, stages in _mapping(content, source).items():
        for stage, prompts in _mapping(stages, f"{source}: {language}").items():
            place = f"{source}: {language}.{stage}"
            if stage not in STAGES:
                raise LabelledError(f"{place}: is not a stage ({', '.join(STAGES)})")
            if not isinstance(prompts, list):
                raise LabelledError(f"{place}: must be a list of prompts")
            found += [
                Labelled(language=str(language), stage=stage, prompt=_prompt(item, f"{place}[{index}]"))
                for index, item in enumerate(prompts)
            ]
    if not found:
        raise LabelledError(f"{source}: has no prompts")
    return found


def infer_all(prompts: Iterable[Labelled], config: InferenceConfig) -> list[Inferred]:
    found = []
    for labelled in prompts:
        stage, reason = infer(labelled.prompt, config)
        found.append(Inferred(labelled=labelled, stage=stage, reason=reason))
    return found


def accuracy(found: Iterable[Inferred]) -> float:
    right = [each.is_right for each in found]
    return sum(right) / len(right)


def timed_us(prompts: Iterable[Labelled], config: InferenceConfig) -> list[float]:
    """Measure inference of each prompt in µs, shortest first, with pasted code in front to make it 2 KB long."""
    pasted = Path(__file__).read_text(encoding="utf-8")
    took = []
    for each in prompts:
        text = each.prompt.last_user_text
        prompt = replace(each.prompt, last_user_text=f"{pasted[: TIMED_BYTES - len(text.encode()) - 1]}\n{text}")
        infer(prompt, config)  # the words of a text are new only once
        began_s = monotonic_s()
        for _ in range(TIMED_ROUNDS):
            infer(prompt, config)
        took.append((monotonic_s() - began_s) / TIMED_ROUNDS * 1e6)
    return sorted(took)


def report(found: list[Inferred]) -> Iterator[str]:
    """Yield lines: accuracy by language and stage, the confusion matrix, reasons, and every mistake."""
    yield _row("", STAGES, "all")
    for language in dict.fromkeys(each.labelled.language for each in found):
        of_language = [each for each in found if each.labelled.language == language]
        yield _row(language, [_share(of_language, stage) for stage in STAGES], _share(of_language))
    yield _row("all", [_share(found, stage) for stage in STAGES], _share(found))
    yield ""
    yield _row("taken for", STAGES)
    pairs = Counter((each.labelled.stage, each.stage) for each in found)
    for expected in STAGES:
        yield _row(expected, [str(pairs[expected, inferred]) for inferred in STAGES])
    yield ""
    for reason, count in Counter(each.reason for each in found).most_common():
        yield f"{reason:<14}{count:>5}, {_percent([each for each in found if each.reason == reason])} right"
    mistakes = [each for each in found if not each.is_right]
    yield ""
    yield from (
        f"{each.labelled.language} {each.labelled.stage} taken for {each.stage} ({each.reason}):"
        f" {_shown(each.labelled.prompt.last_user_text)}"
        for each in mistakes
    )


def _row(name: str, cells: Iterable[str], last: str = "") -> str:
    return f"{name:<10}{''.join(f'{cell:>16}' for cell in cells)}{last:>16}".rstrip()


def _share(found: list[Inferred], stage: str | None = None) -> str:
    matching = [each for each in found if stage in (None, each.labelled.stage)]
    return f"{sum(each.is_right for each in matching)}/{len(matching)} {_percent(matching)}" if matching else "-"


def _percent(found: list[Inferred]) -> str:
    return f"{100 * accuracy(found):.1f} %"


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:99]}…"


def _prompt(item: Any, place: str) -> Prompt:
    if isinstance(item, str):
        return Prompt(last_user_text=item)
    fields = _mapping(item, place)
    tools = fields.get("tools", [])
    if not fields.keys() <= _FIELDS or not isinstance(fields.get("text"), str) or not isinstance(tools, list):
        raise LabelledError(f"{place}: must be a text, or a mapping with text, system and a list of tools")
    return Prompt(
        last_user_text=fields["text"], system_text=str(fields.get("system", "")), tool_names=tuple(map(str, tools))
    )


def _mapping(content: Any, place: str) -> dict[Any, Any]:
    if not isinstance(content, dict):
        raise LabelledError(f"{place}: must be a mapping")
    return content
