"""A stand-in for the management API of a LiteLLM with a database, which cannot run in tests.

It imitates three versions: 1.80.8 (pages of 100, metadata as text), 1.90.0 (pages of 100, no call id) and 1.109.1
(pages of 1,000, call ids). As in the real one, totals stop at 10,000 and rows of the same moment are in no order.
"""

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.support.loopback import LoopbackServer, QuietHandler

ADMIN_KEY = "sk-admin-key-for-tests"
CAP = 10_000
_MAX_PAGE = {"1.80.8": 100, "1.90.0": 100, "1.109.1": 1000}


class LitellmAdmin:
    """`rows` are spend-log rows in the form of 1.109.1, `logs` documented ones; both may change while it runs."""

    def __init__(self, version: str = "1.109.1") -> None:
        self.version = version
        self.rows: list[dict[str, Any]] = []
        self.logs: list[dict[str, Any]] = []
        self.keys: list[dict[str, Any]] = []
        self.has_database = True
        self.fail_next = 0
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._lock = threading.Lock()
        stand_in = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802 - http.server asks for this name
                url = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(url.query).items()}
                status, content = stand_in.respond(url.path, query, self.headers.get("authorization") or "")
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = LoopbackServer(Handler)

    @property
    def url(self) -> str:
        return self._server.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def respond(self, path: str, query: dict[str, str], authorization: str) -> tuple[int, Any]:
        with self._lock:
            self.asked.append((path, query))
            if self.fail_next:
                self.fail_next -= 1
                return 503, {"error": {"message": "unavailable"}}
        if authorization != f"Bearer {ADMIN_KEY}":
            if not self.has_database:
                return 400, _error("No connected db.", "no_db_connection", "400")
            return 401, _error("Authentication Error, Invalid proxy server token passed", "auth_error", "401")
        if not self.has_database:
            return 500, {"detail": {"error": "Database not connected. Connect a database to your proxy"}}
        routes = {
            "/spend/logs/v2": self._spend_logs,
            "/key/list": self._key_list,
            "/v1/logs": self._logs,
            "/v1/usage/global": self._usage,
            "/v1/usage/spend": self._spend,
            "/v1/key/list": self._documented_keys,
        }
        route = routes.get(path)
        return route(query) if route else (404, {"detail": "Not Found"})

    def _spend_logs(self, query: Mapping[str, str]) -> tuple[int, Any]:
        size, page = int(query.get("page_size", 50)), int(query.get("page", 1))
        if size > _MAX_PAGE[self.version]:
            message = f"Input should be less than or equal to {_MAX_PAGE[self.version]}"
            return 422, {"detail": [{"type": "less_than_equal", "loc": ["query", "page_size"], "msg": message}]}
        start, end = _moment(query["start_date"]), _moment(query["end_date"])
        found = [row for row in self.rows if start <= _moment(row["startTime"]) <= end]
        is_ascending = self.version != "1.80.8" and query.get("sort_order") == "asc"
        found.sort(key=lambda row: str(row["startTime"]), reverse=not is_ascending)
        total = min(len(found), CAP)
        return 200, {
            "data": [self._as_written(row) for row in found[(page - 1) * size : page * size]],
            "total": total,
            "page": page,
            "page_size": size,
            "total_pages": -(-total // size),
        }

    def _as_written(self, row: dict[str, Any]) -> dict[str, Any]:
        missing = {
            "1.109.1": set(),
            "1.90.0": {"litellm_call_id", "request_duration_ms"},
            "1.80.8": {"litellm_call_id", "request_duration_ms", "status", "agent_id"},
        }[self.version]
        written = {name: value for name, value in row.items() if name not in missing}
        if self.version == "1.80.8":
            written["metadata"] = json.dumps(row.get("metadata") or {})
        return written

    def _key_list(self, query: Mapping[str, str]) -> tuple[int, Any]:
        size, page = int(query.get("size", 10)), int(query.get("page", 1))
        if size > 100:
            return 422, {"detail": [{"loc": ["query", "size"], "msg": "Input should be less than or equal to 100"}]}
        keys: list[Any] = self.keys[(page - 1) * size : page * size]
        if query.get("return_full_object") != "true":
            keys = [key["token"] for key in keys]
        total = len(self.keys)
        return 200, {"keys": keys, "total_count": total, "current_page": page, "total_pages": -(-total // size)}

    def _documented_keys(self, _query: Mapping[str, str]) -> tuple[int, Any]:
        return 200, self.keys

    def _logs(self, query: Mapping[str, str]) -> tuple[int, Any]:
        start, end = _moment(query["start_date"]), _moment(query["end_date"])
        found = [row for row in self.logs if start <= _moment(row["created_at"]) < end]
        return 200, found[: int(query.get("limit", 100))]

    def _usage(self, _query: Mapping[str, str]) -> tuple[int, Any]:
        tokens = sum(row["total_tokens"] for row in self.logs)
        return 200, {"total_requests": len(self.logs), "total_tokens": tokens}

    def _spend(self, _query: Mapping[str, str]) -> tuple[int, Any]:
        return 200, {"total_spend": round(sum(row["spend"] for row in self.logs), 9)}


def _error(message: str, kind: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
