"""Tables of the overview: their columns, their order, and the same as CSV. Pure.

Times in files are UTC in ISO 8601 and money is in USD with all nine decimals; nothing there depends on a language.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from codexflow.lib.money import format_usd
from codexflow.lib.spreadsheets import csv_bytes, escape_formulas
from logs.usage.sums import Sums

# Column in the URL -> whether a first click on it sorts the largest first.
GROUP_COLUMNS = {"name": False, "cost": True, "requests": True, "tokens": True, "errors": True, "rate": True}
TIME_COLUMNS = {
    "time": False, "cost": True, "requests": True, "tokens": True, "errors": True, "rate": True, "p50": True,
    "p95": True,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """Column that a table is sorted by, and the direction. In a URL: `cost`, or `-cost` for the largest first."""

    column: str
    is_descending: bool

    @property
    def text(self) -> str:
        return f"{'-' if self.is_descending else ''}{self.column}"

    @property
    def aria(self) -> str:
        return "descending" if self.is_descending else "ascending"

    def after_click(self, column: str, columns: dict[str, bool]) -> "Order":
        """Order that a click on a column's heading makes: the other direction of the present one."""
        return Order(column, not self.is_descending if column == self.column else columns[column])


def order_in(text: str, columns: dict[str, bool], default: Order) -> Order:
    """Read an order from the URL; anything unknown is the default."""
    column = text.removeprefix("-")
    return Order(column, text.startswith("-")) if column in columns else default


def error_rate(sums: Sums) -> float:
    """Part of the requests that failed, 0 to 1."""
    return sums.errors / sums.requests if sums.requests else 0.0


@dataclass(frozen=True, slots=True)
class Times:
    """Percentiles of latency in one bucket, in ms; None where nothing was measured."""

    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class TimeRow:
    """One bucket of time: its sums and its latency."""

    start: datetime
    end: datetime
    sums: Sums
    times: Times


def sorted_times(rows: Iterable[TimeRow], order: Order) -> list[TimeRow]:
    """Rows in order; those without a latency come last when it is the column."""

    def value(row: TimeRow) -> float:
        if order.column == "time":
            return row.start.timestamp()
        if order.column == "rate":
            return error_rate(row.sums)
        if order.column in ("p50", "p95"):
            return float(getattr(row.times, order.column) or 0)
        return row.sums.of(order.column)

    ordered = sorted(rows, key=value, reverse=order.is_descending)
    if order.column in ("p50", "p95"):
        ordered.sort(key=lambda row: row.times.p50 is None)
    return ordered


def sorted_groups(groups: dict[str, Sums], names: dict[str, str], order: Order, metric: str) -> list[str]:
    """Ids of the groups in order. Groups that are alike in the column come by the metric, then by their name."""

    def value(group: str) -> float:
        return error_rate(groups[group]) if order.column == "rate" else groups[group].of(order.column)

    by_name = sorted(groups, key=lambda group: (names[group].casefold(), group))
    if order.column == "name":
        return by_name[::-1] if order.is_descending else by_name
    by_metric = sorted(by_name, key=lambda group: -groups[group].of(metric))
    return sorted(by_metric, key=value, reverse=order.is_descending)


def times_csv(rows: Sequence[TimeRow]) -> bytes:
    """Table over time as CSV, oldest first."""
    head = [
        "start", "end", "cost_usd", "requests", "tokens", "errors", "error_rate", "latency_p50_ms", "latency_p95_ms",
    ]  # fmt: skip
    lines = [[_utc(row.start), _utc(row.end), *_sums(row.sums), row.times.p50, row.times.p95] for row in rows]
    return csv_bytes([head, *lines])


def groups_csv(kind: str, groups: Sequence[str], names: dict[str, str], sums: dict[str, Sums]) -> bytes:
    """Table of groups as CSV, every group with its id and its name."""
    head = [kind, "name", "cost_usd", "requests", "tokens", "errors", "error_rate"]
    lines = [[escape_formulas(each), escape_formulas(names[each]), *_sums(sums[each])] for each in groups]
    return csv_bytes([head, *lines])


def percentiles_csv(measured: dict[str, dict[str, float | None]]) -> bytes:
    """Percentiles as CSV: a line for each thing measured, in ms."""
    lines = [
        [name, percentiles["p50"], percentiles["p95"], percentiles["p99"]] for name, percentiles in measured.items()
    ]
    return csv_bytes([["measured", "p50_ms", "p95_ms", "p99_ms"], *lines])


def _sums(sums: Sums) -> list[object]:
    rate = f"{error_rate(sums):.6f}" if sums.requests else ""
    return [format_usd(sums.cost_nanos, decimals=9), sums.requests, sums.tokens, sums.errors, rate]


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
