"""Exports: requested by key, made by the worker, fetched only with permission."""

import gzip
import json
from typing import Any

import httpx

from keys.tests.factories import a_key
from tests.support.installation import Installation
from tests.support.waiting import until


def api(running: Installation, key: str, method: str, path: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.request(method, f"{running.url}/api/v1/{path}", headers=headers, timeout=60, **more)


def done(running: Installation, key: str, export_id: str) -> Any:
    def found() -> Any:
        response = api(running, key, "GET", f"exports/{export_id}").json()
        return response if response["state"] not in ("queued", "running") else None

    return until(found, within_s=30, what="the export")


def test_an_export_is_made_and_fetched(running: Installation) -> None:
    key = a_key().plain
    rows = [running.row_of(running.post(key, model=model)) for model in ("cfx-code", "cfx-plan")]
    asked = api(running, key, "POST", "exports", json={"format": "jsonl", "stage": "plan"})
    assert asked.status_code == 202, asked.text
    made = done(running, key, asked.json()["id"])
    assert (made["state"], made["rows"], made["progress"]) == ("done", 1, 1.0)
    file = httpx.get(
        f"{running.url}{made['download']}",
        headers={"Authorization": f"Bearer {key}", "Accept-Encoding": "gzip"},
        timeout=60,
    )
    assert (file.headers["content-type"], len(file.content)) == ("application/gzip", made["size_bytes"])
    assert file.headers["content-disposition"].endswith('.jsonl.gz"')
    (line,) = gzip.decompress(file.content).splitlines()
    assert json.loads(line)["id"] == str(rows[1].request_id)
    assert api(running, key, "DELETE", f"exports/{made['id']}").status_code == 204
    assert httpx.get(f"{running.url}{made['download']}", headers={"Authorization": f"Bearer {key}"}).status_code == 404


def test_strangers_get_no_export(running: Installation) -> None:
    ada, eve = a_key().plain, a_key().plain
    export_id = api(running, ada, "POST", "exports", json={"format": "csv"}).json()["id"]
    done(running, ada, export_id)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/download")):
        response = api(running, eve, method, f"exports/{export_id}{path}")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
        assert httpx.request(method, f"{running.url}/api/v1/exports/{export_id}{path}").status_code == 401
    assert api(running, eve, "GET", "exports").json()["data"] == []
    assert api(running, ada, "GET", f"exports/{export_id}/download").status_code == 200
