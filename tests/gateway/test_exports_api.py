"""Exports on the running house: asked for by key, made by the worker, fetched by who may, and by nobody else."""

import gzip
import json
from typing import Any

import httpx

from keys.tests.factories import a_key
from tests.support.live import Live
from tests.support.waiting import until


def api(live: Live, key: str, method: str, path: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.request(method, f"{live.url}/api/v1/{path}", headers=headers, timeout=20, **more)


def done(live: Live, key: str, export_id: str) -> Any:
    def found() -> Any:
        answer = api(live, key, "GET", f"exports/{export_id}").json()
        return answer if answer["state"] not in ("queued", "running") else None

    return until(found, within_s=30, what="the export")


def test_an_export_is_made_and_fetched(live: Live) -> None:
    key = a_key().plain
    rows = [live.row_of(live.post(key, model=model)) for model in ("cfx-code", "cfx-plan")]
    asked = api(live, key, "POST", "exports", json={"format": "jsonl", "stage": "plan"})
    assert asked.status_code == 202, asked.text
    made = done(live, key, asked.json()["id"])
    assert (made["state"], made["rows"], made["progress"]) == ("done", 1, 1.0)
    file = httpx.get(
        f"{live.url}{made['download']}",
        headers={"Authorization": f"Bearer {key}", "Accept-Encoding": "gzip"},
        timeout=20,
    )
    assert (file.headers["content-type"], len(file.content)) == ("application/gzip", made["size_bytes"])
    assert file.headers["content-disposition"].endswith('.jsonl.gz"')
    (line,) = gzip.decompress(file.content).splitlines()
    assert json.loads(line)["id"] == str(rows[1].request_id)
    assert api(live, key, "DELETE", f"exports/{made['id']}").status_code == 204
    assert httpx.get(f"{live.url}{made['download']}", headers={"Authorization": f"Bearer {key}"}).status_code == 404


def test_strangers_find_no_export(live: Live) -> None:
    ada, eve = a_key().plain, a_key().plain
    export_id = api(live, ada, "POST", "exports", json={"format": "csv"}).json()["id"]
    done(live, ada, export_id)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/download")):
        answer = api(live, eve, method, f"exports/{export_id}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert httpx.request(method, f"{live.url}/api/v1/exports/{export_id}{path}").status_code == 401
    assert api(live, eve, "GET", "exports").json()["data"] == []
    assert api(live, ada, "GET", f"exports/{export_id}/download").status_code == 200
