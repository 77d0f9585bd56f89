"""Types of arguments of commands: what the database would refuse is refused with a sentence. Pure."""

import argparse
from collections.abc import Callable
from datetime import date


def whole_number(*, least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers within bounds."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text[:20]) <= most:
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is no whole number from {least} to {most}")
        return int(text)

    return parse


def day(text: str) -> date:
    """Parse a day such as 2026-11-30."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day such as 2026-11-30") from None


def line(*, most: int) -> Callable[[str], str]:
    """Return a parser of texts that are shown on a line: neither empty nor longer than `most`."""

    def parse(text: str) -> str:
        text = " ".join(text.split())
        if not text or not text.isprintable() or len(text) > most:
            raise argparse.ArgumentTypeError(f"give 1 to {most} characters")
        return text

    return parse
