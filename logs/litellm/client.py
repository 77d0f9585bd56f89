"""Client of LiteLLM's management API: its spend logs, and the documented log, usage and key endpoints.

Versions differ: pages hold 1,000 rows or 100, totals stop at 10,000 while pages go on, old versions cannot sort. So
pages are read until one is empty, and rows are returned as they are (mapping.py reads all their formats).
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx

from codexflow.lib.server_urls import is_tls

logger = logging.getLogger(__name__)

TIMEOUT = httpx.Timeout(60, connect=5)
TRIES = 4
PAGE_SIZES = (1000, 100)
MAX_PAGES = 10_000
# Rows of a day that are asked for, one after the other until they suffice.
DOCUMENTED_LIMITS = (10_000, 100_000, 1_000_000)
KEY_PAGE_SIZE = 100
MAX_KEY_PAGES = 200


class LitellmError(Exception):
    """LiteLLM cannot be read. `code` is for programs, the text for operators."""

    code = "litellm_failed"
    # Only an operator can end it: the next run would fail in the same way.
    is_lasting = False


class KeyRefused(LitellmError):
    """LiteLLM does not accept LITELLM_ADMIN_KEY."""

    code = "key_refused"
    is_lasting = True


class NoDatabase(LitellmError):
    """LiteLLM has no database, and so no log."""

    code = "no_database"
    is_lasting = True


class NoSuchEndpoint(LitellmError):
    """This version of LiteLLM lacks the endpoint."""

    code = "no_such_endpoint"
    is_lasting = True


class TooManyRows(LitellmError):
    """A window has more rows than LiteLLM returns. Other windows can be read all the same."""

    code = "too_many_rows"


class LitellmClient:
    """A client for one run. Use it in a `with` block."""

    def __init__(
        self,
        url: str,
        admin_key: str,
        *,
        pause: Callable[[float], None] = time.sleep,
        timeout: httpx.Timeout = TIMEOUT,
        tries: int = TRIES,
    ) -> None:
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {admin_key}"},
            timeout=timeout,
            trust_env=False,
            verify=is_tls(url),
        )
        self._pause = pause
        self._tries = tries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def spend_rows(self, start: datetime, end: datetime) -> Iterator[list[Any]]:
        """Pages of `/spend/logs/v2` of calls that began in the window, the oldest first. Raises LitellmError."""
        sizes = list(PAGE_SIZES)
        page = 1
        # LiteLLM compares whole seconds, both ends included.
        until = end if end.microsecond == 0 else end.replace(microsecond=0) + timedelta(seconds=1)
        while page <= MAX_PAGES:
            query = {
                "start_date": f"{start:%Y-%m-%d %H:%M:%S}",
                "end_date": f"{until:%Y-%m-%d %H:%M:%S}",
                "page": page,
                "page_size": sizes[0],
                # Old versions ignore these two.
                "sort_by": "startTime",
                "sort_order": "asc",
            }
            response = self._get("/spend/logs/v2", query)
            if response.status_code in (HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.BAD_REQUEST) and len(sizes) > 1:
                sizes.pop(0)
                continue
            page_of_rows = _checked(response)
            rows = page_of_rows.get("data") if isinstance(page_of_rows, Mapping) else page_of_rows
            if not isinstance(rows, list):
                raise LitellmError("The response of /spend/logs/v2 is not a page of rows.")
            if not rows:
                return
            yield rows
            page += 1
        raise TooManyRows(f"More than {MAX_PAGES} pages in one window.")

    def documented_rows(self, start: datetime, _end: datetime) -> Iterator[list[Any]]:
        """Rows of `/v1/logs`, which has no pages, of the day in which the window begins. Raises LitellmError."""
        day = start.date()
        rows = self._documented_day(day, DOCUMENTED_LIMITS[0])
        is_cut = len(rows) >= DOCUMENTED_LIMITS[0]
        for limit in DOCUMENTED_LIMITS[1:]:
            if not is_cut:
                break
            try:
                more = self._documented_day(day, limit)
            except LitellmError:
                break  # it gives no more at a time
            is_cut = len(more) >= limit or len(more) <= len(rows)
            rows = more if len(more) > len(rows) else rows
        yield rows
        if is_cut:
            raise TooManyRows(f"/v1/logs gave {len(rows)} rows of {day}, its maximum: the rest of the day is missing.")

    def _documented_day(self, day: date, limit: int) -> list[Any]:
        rows = _checked(self._get("/v1/logs", {**_days(day, day + timedelta(days=1)), "limit": limit}))
        if isinstance(rows, Mapping):
            rows = rows.get("data") or rows.get("logs")
        if not isinstance(rows, list):
            raise LitellmError("The response of /v1/logs is not a list of rows.")
        return rows

    def create_key(self, alias: str) -> str:
        """Make a virtual key that may use every model and has no budget, for the gateway. Raises LitellmError."""
        try:
            response = self._http.post("/key/generate", json={"key_alias": alias})
        except httpx.HTTPError as exc:
            raise LitellmError(f"LiteLLM does not respond: {exc.__class__.__name__}.") from exc
        _raise_if_lasting(response, "/key/generate")
        made = _checked(response)
        key = made.get("key") if isinstance(made, Mapping) else None
        if not isinstance(key, str) or not key:
            raise LitellmError("The response of /key/generate has no key.")
        return key

    def usage(self, start: datetime, end: datetime) -> tuple[Any, Any]:
        """Requests and spend as `/v1/usage/global` and `/v1/usage/spend` sum them up. Raises LitellmError."""
        query = _days(start.date(), end.date())
        requests = _checked(self._get("/v1/usage/global", query))
        spend = _checked(self._get("/v1/usage/spend", query))
        return (
            _first(requests, "total_requests", "requests"),
            _first(spend, "total_spend", "spend", "cost"),
        )

    def keys(self, *, is_documented: bool, key_hash: str = "") -> list[Mapping[str, Any]]:
        """LiteLLM's keys: `/v1/key/list` as documented, or `/key/list` page by page. Raises LitellmError.

        With `key_hash` only the page that has this one; versions that do not filter by it give their first page.
        """
        if is_documented:
            return _objects(_checked(self._get("/v1/key/list", {})))
        found: list[Mapping[str, Any]] = []
        for page in range(1, (1 if key_hash else MAX_KEY_PAGES) + 1):
            query = {"page": page, "size": KEY_PAGE_SIZE, "return_full_object": "true"}
            query |= {"key_hash": key_hash} if key_hash else {}
            keys = _objects(_checked(self._get("/key/list", query)))
            if not keys:
                break
            found += keys
        return found

    def _get(self, path: str, query: Mapping[str, Any]) -> httpx.Response:
        """Get with retries after temporary failures. Raises LitellmError."""
        for number in range(1, self._tries + 1):
            is_last = number == self._tries
            try:
                response = self._http.get(path, params=dict(query))
            except httpx.HTTPError as exc:
                if is_last:
                    raise LitellmError(f"LiteLLM does not respond: {exc.__class__.__name__}.") from exc
            else:
                _raise_if_lasting(response, path)
                if response.status_code < 500 and response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                    return response
                if is_last:
                    raise LitellmError(f"LiteLLM responds to {path} with status {response.status_code}.")
            self._pause(2.0 ** (number - 1))
        raise AssertionError("unreachable")


def _raise_if_lasting(response: httpx.Response, path: str) -> None:
    """Raise for failures that no retry helps. Texts differ by version and route, so several are known of each."""
    status, text = response.status_code, response.text[:2000].lower()
    if status < 400:
        return
    if "no_db_connection" in text or "no connected db" in text or "database not connected" in text or "no db" in text:
        raise NoDatabase(
            "LiteLLM has no database, or refuses LITELLM_ADMIN_KEY while it has none: it keeps no log to read. "
            "Set its DATABASE_URL; until then only the webhook reports."
        )
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise KeyRefused("LiteLLM refuses LITELLM_ADMIN_KEY: it must be its master key, or a key of an administrator.")
    if status == HTTPStatus.NOT_FOUND:
        raise NoSuchEndpoint(f"This LiteLLM has no {path}. See CFX_LITELLM_SYNC; versions below 1.80.8 cannot be read.")


def _checked(response: httpx.Response) -> Any:
    if response.status_code >= 400:
        raise LitellmError(f"LiteLLM responds to {response.url.path} with status {response.status_code}.")
    try:
        return response.json()
    except ValueError as exc:
        raise LitellmError(f"LiteLLM's response to {response.url.path} is not JSON.") from exc


def _objects(found: Any) -> list[Mapping[str, Any]]:
    rows = found.get("keys") if isinstance(found, Mapping) else found
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _first(found: Any, *names: str) -> Any:
    return next((found[name] for name in names if name in found), None) if isinstance(found, Mapping) else None


def _days(start: date, end: date) -> dict[str, str]:
    return {"start_date": f"{start:%Y-%m-%d}", "end_date": f"{end:%Y-%m-%d}"}
