"""Count tokens by published vocabularies: a program of the environment that has their libraries (`.venv-litellm`).

Reads {"texts": {name: text}, "search": {"seed": 1, "rounds": 100, "characters": 100}} from standard input, the files of
further vocabularies from its arguments (name=path of a tokenizer.json or a Tekken file), and writes
{vocabulary: {"counts": {name: tokens}, "found": text, "found_tokens": tokens}}.
"""

import base64
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tokens.texts import search

Count = Callable[[str], int]


def bundled() -> dict[str, Count]:
    """Return the vocabularies that LiteLLM brings along."""
    spec = importlib.util.find_spec("litellm")
    folder = Path(spec.origin or "").parent / "litellm_core_utils" / "tokenizers" if spec else Path()
    importlib.import_module("litellm.litellm_core_utils.default_encoding")  # makes tiktoken read that folder
    tiktoken = importlib.import_module("tiktoken")
    found = {name: _of_tiktoken(tiktoken.get_encoding(name)) for name in ("cl100k_base", "o200k_base")}
    return {**found, "claude-2": of_file(folder / "anthropic_tokenizer.json")}


def _of_tiktoken(encoding: Any) -> Count:
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def of_file(path: Path) -> Count:
    """Read a vocabulary in the form of Hugging Face's or Mistral's tokenizers."""
    fields = json.loads(path.read_text())
    if "config" in fields and "pattern" in fields["config"]:
        return _of_tekken(fields)
    tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _of_tekken(fields: dict[str, Any]) -> Count:
    config = fields["config"]
    size = config["default_vocab_size"] - config["default_num_special_tokens"]
    ranks = {base64.b64decode(each["token_bytes"]): each["rank"] for each in fields["vocab"][:size]}
    encoding = importlib.import_module("tiktoken").Encoding
    return _of_tiktoken(encoding("tekken", pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={}))


def main() -> None:
    asked = json.load(sys.stdin)
    vocabularies = bundled()
    for argument in sys.argv[1:]:
        name, _, path = argument.partition("=")
        vocabularies[name] = of_file(Path(path))
    report = {}
    for name, count in vocabularies.items():
        found = search(count, **asked["search"])
        counts = {kind: count(text) for kind, text in asked["texts"].items()}
        report[name] = {"counts": counts, "found": found, "found_tokens": count(found)}
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
