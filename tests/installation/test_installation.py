"""From a filled-in .env to the last graceful stop, as docs/operators/ has it.

What runs is what ships: the Dockerfile's own pip and collectstatic commands, the files that .dockerignore lets through,
the entrypoint, compose.yaml's environment, commands, init script and health checks (parsed, not copied), a real LiteLLM
with the shipped settings, nginx with the guide's configuration and TLS. As root, programs run as the image's user, who
can write to its volume only. In place of the base image stands Debian's Python of the same version, with its suite's
libraries (`tests/support/pythons.py`).

Not proved, for want of Docker: that the base images exist and build, the mounts and networks of compose, `init: true`,
restarts, and the order of `depends_on`. LiteLLM has no database here, so virtual keys and its spend logs are not tried.
"""

import json
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from codexflow.env import REPOSITORY
from codexflow.lib.weak_secrets import folded
from tests.installation.deployment import API, APP, FILLED, PASSWORD, Deployment, deployment
from tests.support.waiting import until

pytestmark = [
    pytest.mark.image_python,
    pytest.mark.nginx,
    pytest.mark.litellm,
    pytest.mark.xdist_group("installation"),
]
NEW_PASSWORD = "a-password-that-no-guide-prints"
KNOWN = "admin123456"
SECRETS = {secret for name, secret in FILLED.items() if "SECRET" in name or "PASSWORD" in name or "KEY" in name}


@pytest.fixture(scope="module")
def installed() -> Iterator[Deployment]:
    with deployment() as made:
        made.build()
        made.start_postgres()
        made.start_valkey()
        made.start_litellm()
        made.start_nginx()
        yield made


def test_an_installation_from_its_first_start_to_its_stop(installed: Deployment) -> None:
    programs_refuse_a_database_without_tables(installed)
    migrate_and_seed(installed)
    for name in ("web", "worker", "beat"):
        installed.start_program(name)
    until(lambda: _is_alive(installed), what=f"web\n{installed.log('web')}")
    preflight_finds_nothing(installed)
    hosts_and_tls_are_separate(installed)
    key = first_login_and_key(installed)
    request_id = first_call_and_stream(installed, key)
    usage_is_stored_and_reported(installed, key, request_id)
    an_export_is_downloaded(installed, key)
    containers_are_healthy(installed)
    servers_come_back_and_nothing_is_restarted(installed, key)
    programs_stop_gracefully(installed, key)


def programs_refuse_a_database_without_tables(installed: Deployment) -> None:
    done = installed.entrypoint("web", "web")
    assert done.returncode == 2, done.stderr
    assert "schema: migrations are missing: " in done.stderr
    assert "docker/entrypoint.sh setup" in done.stderr
    assert "Traceback" not in done.stderr


def migrate_and_seed(installed: Deployment) -> None:
    first = installed.entrypoint("migrate", *installed.services["migrate"]["command"])
    assert first.returncode == 0, first.stderr
    assert "🎉 Seeding completed!" in first.stdout
    assert PASSWORD not in first.stdout
    second = installed.entrypoint("migrate", "setup")
    assert second.returncode == 0
    assert "(was there)" in second.stdout


def preflight_finds_nothing(installed: Deployment) -> None:
    done = installed.entrypoint("web", "manage", "preflight", "--json")
    found = json.loads(done.stdout)
    assert found["ok"], done.stdout
    warnings = {each["problem"] for each in found["findings"] if each["level"] == "warning"}
    # Left out on purpose: there is no mail server here, and no seller.
    assert all("EMAIL_URL" in each or "CFX_SELLER_NAME" in each for each in warnings), warnings
    assert "row-level security is in force" in done.stdout


def hosts_and_tls_are_separate(installed: Deployment) -> None:
    until(lambda: installed.inside("/health").json()["status"] == "healthy", within_s=30, what="good health")
    assert installed.inside("/health").json()["details"]["row_level_security"] is True
    assert installed.inside("/health/ready").status_code == 200
    redirected = installed.inside("/accounts/login/", host=APP)
    assert (redirected.status_code, redirected.headers["location"]) == (301, f"https://{APP}/accounts/login/")
    with installed.client(APP) as app, installed.client(API) as api:
        login = app.get("/accounts/login/")
        assert login.status_code == 200
        assert "max-age=31536000" in login.headers["strict-transport-security"]
        for path in ("/", "/ops/", "/accounts/login/", "/metrics"):
            response = api.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_route"), path
        assert api.get("/health").status_code == 200
        assert api.head("/").status_code == 200
        assert api.post("/v1/chat/completions", json={}).json()["error"]["message"] == "Invalid API key"
    token = {"Authorization": f"Bearer {FILLED['CFX_METRICS_TOKEN']}"}
    assert installed.inside("/metrics", **token).status_code == 200
    assert "proxy.not_trusted" not in installed.log("web")


def first_login_and_key(installed: Deployment) -> str:
    with installed.client(APP) as app:

        def submit(path: str, **fields: str) -> httpx.Response:
            page = app.get(path)
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
            assert token, page.text[:500]
            headers = {"Referer": f"https://{APP}{path}", "Origin": f"https://{APP}"}
            return app.post(path, data={"csrfmiddlewaretoken": token[1], **fields}, headers=headers)

        entered = submit("/accounts/login/", login="admin@cfx.dev", password=PASSWORD)
        assert entered.status_code == 302, entered.text[:2000]
        change = "/accounts/password/change/"
        assert app.get("/home/").headers["location"] == change
        for refused in (KNOWN, KNOWN.upper()):
            page = submit(change, oldpassword=PASSWORD, password1=refused, password2=refused)
            assert page.status_code == 200, "the guide's password is no new password"
            assert app.get("/home/").headers["location"] == change
        done = submit(change, oldpassword=PASSWORD, password1=NEW_PASSWORD, password2=NEW_PASSWORD)
        assert done.status_code == 302, done.text[:2000]
        created = submit("/o/codexflow/keys/create/", name="first")
        found = re.search(r"data-secret>(cfx_[^<]+)<", created.text)
        assert found, created.text[:3000]
        return found[1]


def first_call_and_stream(installed: Deployment, key: str) -> str:
    headers = {"Authorization": f"Bearer {key}", "X-CFX-Stage": "code"}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Python ile merhaba dünya yaz"}]}
    with installed.client(API) as api:
        answer = api.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]
        with api.stream("POST", "/v1/chat/completions", json={**body, "stream": True}, headers=headers) as stream:
            lines = [line for line in stream.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        return str(answer.headers["x-cfx-request-id"])


def usage_is_stored_and_reported(installed: Deployment, key: str, request_id: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    with installed.client(API) as api:

        def row() -> dict[str, Any] | None:
            response = api.get(f"/api/v1/requests/{request_id}", headers=headers)
            return response.json() if response.status_code == 200 else None

        found = until(row, within_s=30, what=f"the row\n{installed.log('worker')[-2000:]}")
        assert found["client_address"] in ("127.0.0.1", None) if "client_address" in found else True
        report = {"user_id": key, "model": "gpt-6-luna", "usage": {"total_tokens": 3}, "id": "reported-by-hand"}
        address = f"http://127.0.0.1:{installed.ports['web']}/api/webhook/litellm"
        sent = httpx.post(address, json=report, headers={"X-API-Key": FILLED["LITELLM_WEBHOOK_KEY"]}, timeout=60)
        assert sent.status_code == 202, sent.text
        refused = httpx.post(address, json=report, headers={"X-API-Key": "wrong"}, timeout=60)
        assert refused.status_code == 401


def an_export_is_downloaded(installed: Deployment, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    with installed.client(API) as api:
        job = api.post("/api/v1/exports", json={"format": "csv"}, headers=headers).json()

        def download() -> str:
            return str(api.get(f"/api/v1/exports/{job['id']}", headers=headers).json().get("download") or "")

        path = until(download, within_s=30, what="the export")
        file = api.get(path, headers=headers)
        assert file.status_code == 200
        assert len(file.content) > 20


def containers_are_healthy(installed: Deployment) -> None:
    for name in ("web", "worker", "beat"):
        test = installed.services[name]["healthcheck"]["test"]
        argv = ["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
        argv = [each.replace(":8000/", f":{installed.ports['web']}/") for each in argv]
        argv = [each.replace("/var/lib/codexflow", str(installed.home)) for each in argv]
        done = installed.run(argv, installed.environ(name), check=False, cwd=installed.app)
        assert done.returncode == 0, f"{name}: {argv}\n{done.stdout}{done.stderr}"


def servers_come_back_and_nothing_is_restarted(installed: Deployment, key: str) -> None:
    """Stop PostgreSQL and Valkey under the running programs; calls and pages are served within 10 s of their return."""
    before = {name: process.pid for name, process in installed.processes.items() if name in ("web", "worker", "beat")}
    installed.stop("postgres", with_signal=signal.SIGINT)
    installed.stop("valkey")
    until(lambda: installed.inside("/health").json()["checks"]["database"] is False, what="an outage")
    away = installed.inside("/health").json()
    assert (away["status"], away["checks"]["redis"]) == ("degraded", False)
    assert installed.inside("/health/live").status_code == 200
    assert installed.inside("/health/ready").status_code == 200, "known keys go on for 15 minutes"
    installed.start_postgres()
    installed.start_valkey()
    headers = {"Authorization": f"Bearer {key}"}
    body = {"messages": [{"role": "user", "content": "back again"}]}
    with installed.client(API) as api, installed.client(APP) as app:

        def call() -> httpx.Response:
            return api.post("/v1/chat/completions", json=body, headers=headers)

        until(lambda: call().status_code == 200, what="a call after the outage")
        until(lambda: app.get("/accounts/login/").status_code == 200, what="a page after the outage")
        path = f"/api/v1/requests/{call().headers['x-cfx-request-id']}"
        # Celery asks for its broker after 2, 4, 6 … 30 s: what the worker stores comes later than calls and pages.
        until(lambda: api.get(path, headers=headers).status_code == 200, within_s=90, what="its row")
    assert {name: installed.processes[name].pid for name in before} == before
    assert all(installed.processes[name].poll() is None for name in before)


def programs_stop_gracefully(installed: Deployment, key: str) -> None:
    """A stream that runs when web is asked to stop ends as if nothing had been."""
    lines: list[str] = []
    begun = threading.Event()

    def stream() -> None:
        body = {"messages": [{"role": "user", "content": "[[fault:slow first_ms=10 gap_ms=200]] tell"}], "stream": True}
        headers = {"Authorization": f"Bearer {key}", "X-CFX-Stage": "code"}
        with (
            installed.client(API) as api,
            api.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response,
        ):
            for line in response.iter_lines():
                lines.append(line)
                begun.set()

    reader = threading.Thread(target=stream)
    reader.start()
    assert begun.wait(20)
    assert installed.stop("web") == 0
    reader.join(20)
    assert "data: [DONE]" in lines, lines[-3:]
    assert installed.stop("worker") == 0
    assert installed.stop("beat") == 0
    for name in ("web", "worker", "beat"):
        assert not [secret for secret in SECRETS if secret in installed.log(name)]
    assert not list(installed.app.rglob("__pycache__")), "the image's files are only read"


def _is_alive(installed: Deployment) -> bool:
    if installed.processes["web"].poll() is not None:
        raise AssertionError(installed.log("web"))
    try:
        return installed.inside("/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_the_guides_password_is_known(tmp_path: Path) -> None:
    assert folded(KNOWN) == KNOWN
    assert KNOWN not in (REPOSITORY / ".env.example").read_text()
