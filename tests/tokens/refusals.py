"""Measure how many calls a credit refuses that it could pay: held a token a byte, and by the count of the prompt.

`python -m tests.tokens.refusals` prints the figures of docs/limits.md; texts are this project's own.
"""

import json
import random
import sys
from collections.abc import Mapping

from msgspec import Struct

from billing.limiter.holds import worst_nanos
from billing.pricing import FrozenRates, Usage, cost_nanos
from codexflow.lib.money import NANOS_PER_USD
from routing.surfaces.body import parse
from routing.surfaces.bounds import bounded, counted
from routing.surfaces.counting import countable
from routing.surfaces.requests import Chat
from tests.tokens.measure import FOLDER, REPOSITORY, counted_in

CREDIT_NANOS = NANOS_PER_USD // 2
# Two dollars a million tokens of input, ten of output, of which nobody asks for a certain number.
RATES = FrozenRates(input_nanos=2 * NANOS_PER_USD, cached_nanos=0, output_nanos=10 * NANOS_PER_USD)
MAX_TOKENS, COMPLETION_TOKENS, CONTEXT_TOKENS = 8_192, 1_000, 1_000_000
SOURCES = {"English": "docs/**/*.md", "Turkish": "docs/tr/**/*.md", "code": "[abcklr]*/**/*.py"}


class Refused(Struct, frozen=True):
    """Calls that a credit can pay, and how many of them it refuses."""

    calls: int
    by_bytes: int
    by_count: int


def sample(seed: int, calls: int, *, from_bytes: int, to_bytes: int) -> dict[str, str]:
    """Return texts of each kind, of sizes that are spread evenly."""
    draw = random.Random(seed)  # noqa: S311 - a sample, the same every time
    found = {}
    for kind, pattern in SOURCES.items():
        paths = sorted(path for path in REPOSITORY.glob(pattern) if kind != "English" or "tr" not in path.parts)
        whole = "\n".join([path.read_text() for path in paths])
        for number in range(calls):
            size_bytes = draw.randint(from_bytes, to_bytes)
            start = draw.randrange(max(1, len(whole) - size_bytes))
            found[f"{kind} {number}"] = (whole + whole)[start:].encode()[:size_bytes].decode(errors="ignore")
    return found


def refused(texts: Mapping[str, str], counts: Mapping[str, int]) -> Refused:
    """Admit each text as a chat message, with the credit to itself."""
    calls = by_bytes = by_count = 0
    rates = {"m": RATES}
    for name, text in texts.items():
        usage = Usage(prompt_tokens=counts[name], completion_tokens=COMPLETION_TOKENS)
        if cost_nanos(usage, RATES) > CREDIT_NANOS:
            continue
        messages = [{"role": "user", "content": text}]
        raw = json.dumps({"model": "m", "messages": messages}, ensure_ascii=False).encode()
        request = parse(raw, Chat)
        size = bounded(raw, request, request.size(MAX_TOKENS), {"m": CONTEXT_TOKENS})
        part = countable(request)
        if part is None:
            raise AssertionError("a message is countable")
        exact = counted(size, request, rest=part.rest, count=counts[name])
        calls += 1
        is_refused = worst_nanos(size, rates) > CREDIT_NANOS
        by_bytes += is_refused
        by_count += is_refused and worst_nanos(exact, rates) > CREDIT_NANOS
    return Refused(calls, by_bytes, by_count)


def measured(*files: str, seed: int, calls: int, from_bytes: int, to_bytes: int) -> dict[str, Refused]:
    """Return what is refused, by the vocabulary that stands in for the provider's count."""
    texts = sample(seed, calls, from_bytes=from_bytes, to_bytes=to_bytes)
    report = counted_in(texts, *files)
    return {vocabulary: refused(texts, each["counts"]) for vocabulary, each in report.items()}


def main() -> None:
    files = [f"{path.parent.parent.name}={path}" for path in sorted(FOLDER.glob("*/models/tokenizer.json"))]
    for from_bytes, to_bytes in ((1_000, 60_000), (60_000, 300_000), (300_000, 600_000)):
        report = measured(*files, seed=7, calls=200, from_bytes=from_bytes, to_bytes=to_bytes)
        for vocabulary, each in report.items():
            sys.stdout.write(
                f"{from_bytes:,}-{to_bytes:,} bytes, {vocabulary}: of {each.calls} calls that the credit can pay,"
                f" {each.by_bytes} refused by bytes, {each.by_count} by the count\n"
            )


if __name__ == "__main__":
    main()
