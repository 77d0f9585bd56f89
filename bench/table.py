"""Figures to table: medians over rounds, ratios taken inside each round. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

Figures = dict[tuple[str, str], float]  # (contender, name of the figure) -> value


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio or a difference that should hold."""

    name: str
    value: Callable[[Figures], float]
    limit: float
    is_least: bool  # else the limit is the most

    def line(self, rounds: Sequence[Figures]) -> str:
        try:
            values = sorted(self.value(each) for each in rounds)
        except KeyError:
            return f"| {self.name} | not measured | | |"
        middle = median(values)
        is_met = middle >= self.limit if self.is_least else middle <= self.limit
        sign = "at least" if self.is_least else "at most"
        verdict = "met" if is_met else "MISSED"
        return f"| {self.name} | {middle:.2f} | {values[0]:.2f}-{values[-1]:.2f} | {sign} {self.limit:g}: {verdict} |"


GOALS = (
    Goal("requests per CPU second, gateway / LiteLLM", lambda f: f["litellm", "cpu"] / f["gateway", "cpu"], 60, True),
    Goal("CPU a request, gateway / nginx", lambda f: f["gateway", "cpu"] / f["nginx", "cpu"], 9, False),
    Goal(
        "streams per CPU second, gateway / LiteLLM",
        lambda f: f["litellm", "stream cpu"] / f["gateway", "stream cpu"],
        15,
        True,
    ),
    Goal("CPU a stream, gateway / nginx", lambda f: f["gateway", "stream cpu"] / f["nginx", "stream cpu"], 2.5, False),
    Goal("added p50 at 100/s (ms)", lambda f: (f["gateway", "p50"] - f["direct", "p50"]) / 1e3, 2, False),
    Goal("added p99 at 100/s (ms)", lambda f: (f["gateway", "p99"] - f["direct", "p99"]) / 1e3, 6, False),
    Goal("added a chunk, p50 (ms)", lambda f: (f["gateway", "chunk"] - f["direct", "chunk"]) / 1e3, 0.25, False),
    Goal("resident memory of the web process (MB)", lambda f: f["gateway", "memory"], 130, False),
)

_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("CPU s / 1,000", "cpu", "{:.3f}"),
    ("requests/s", "rps", "{:.0f}"),
    ("CPU s / 1,000 streams", "stream cpu", "{:.3f}"),
    ("streams/s", "stream rps", "{:.1f}"),
    ("p50 (ms)", "p50 ms", "{:.2f}"),
    ("p99 (ms)", "p99 ms", "{:.2f}"),
    ("a chunk, p50 (ms)", "chunk ms", "{:.3f}"),
)


@dataclass(slots=True)
class Table:
    """The figures of all rounds."""

    rounds: list[Figures] = field(default_factory=list)

    def middle(self, contender: str, name: str) -> float | None:
        values = [each[contender, name] for each in self.rounds if (contender, name) in each]
        return median(values) if values else None

    def text(self) -> str:
        names = dict.fromkeys(contender for each in self.rounds for contender, _ in each)
        lines = [
            "| | " + " | ".join(title for title, _, _ in _COLUMNS) + " |",
            "|---|" + "---|" * len(_COLUMNS),
            *(
                f"| {name} | " + " | ".join(self._cell(name, *column[1:]) for column in _COLUMNS) + " |"
                for name in names
            ),
            "",
            "| goal | median | range | |",
            "|---|---|---|---|",
            *(goal.line(self.rounds) for goal in GOALS),
        ]
        return "\n".join(lines)

    def _cell(self, contender: str, name: str, form: str) -> str:
        value = self.middle(contender, name.removesuffix(" ms"))
        if value is None:
            return ""
        return form.format(value / 1e3 if name.endswith(" ms") else value)
