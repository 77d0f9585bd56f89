"""Preflight: every mistake of a deployment, with what to do, and no part of a secret."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from django.conf import settings
from django.db import connection

from accounts.tests.test_mail_away import Server
from adminpanel.models import HealthCheck
from codexflow.dev.valkey import free_port
from codexflow.env import REPOSITORY
from codexflow.lib.clock import now
from codexflow.lib.email_url import MailServer
from codexflow.lib.litellm_versions import bad_release, known_bad
from codexflow.preflight import installation
from codexflow.preflight.findings import Finding, error, json_of, ok, text_of, warning
from codexflow.preflight.run import bearable, preflight
from codexflow.preflight.servers import check_database, check_litellm, check_mail, check_redis
from codexflow.tests.test_env import GOOD
from tests.support.loopback import LoopbackServer, QuietHandler

KEY = "sk-taken-by-the-stand-in"


def errors(found: Iterator[Finding]) -> list[str]:
    return [each.problem for each in found if each.level == "error"]


def session_database(**changes: str) -> str:
    found = connection.settings_dict
    facts = {"host": found["HOST"], "user": found["USER"], "dbname": found["NAME"], **changes}
    return f"postgresql:///{facts.pop('dbname')}?" + "&".join(
        f"{name}={value}" for name, value in facts.items() if value
    )


@pytest.mark.django_db
def test_a_good_database_is_ok_and_told_apart_from_wrong_ones() -> None:
    assert errors(check_database(session_database())) == []
    assert "the database does not exist" in errors(check_database(session_database(dbname="nowhere")))[0]
    assert "the user does not exist" in errors(check_database(session_database(user="nobody_here")))[0]
    refused = list(check_database(f"postgresql://u:hidden@127.0.0.1:{free_port()}/cfx"))
    assert "nobody listens there" in refused[0].problem
    assert refused[0].may_pass
    assert "no such host" in errors(check_database("postgresql://u:hidden@nowhere.invalid/cfx"))[0]
    assert "hidden" not in str(refused)


@pytest.mark.django_db
def test_connections_must_suffice_for_all_processes() -> None:
    said = errors(check_database(session_database(), processes=100))[0]
    assert said.startswith("100 web processes and a worker need up to 1005 connections; the server has 200")


def test_redis_is_told_apart_from_wrong_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    url = settings.ENV.redis_url
    assert errors(check_redis(url)) == []
    parts = urlsplit(url)
    wrong = f"redis://:hidden@{parts.hostname}:{parts.port}/0"
    found = list(check_redis(wrong))
    assert "the password is wrong or missing" in found[0].problem
    assert "hidden" not in str(found)
    assert "nobody listens there" in errors(check_redis(f"redis://127.0.0.1:{free_port()}/0"))[0]
    assert "no such host" in errors(check_redis("redis://nowhere.invalid:6379/0"))[0]
    assert (
        "no node of a cluster" in errors(check_redis(url.replace("redis://", "redis+cluster://").removesuffix("/0")))[0]
    )
    gone = f"redis+cluster://:hidden@nowhere.invalid,127.0.0.1:{free_port()}"
    found = list(check_redis(gone, name="REDIS_SHARED_URL"))
    assert "nobody listens there" in found[0].problem
    assert found[0].remedy.endswith("correct REDIS_SHARED_URL.")
    assert "hidden" not in str(found)
    memory = {"maxmemory_policy": "allkeys-lru", "maxmemory": 100, "used_memory": 80}
    monkeypatch.setattr(redis.Redis, "info", lambda _client: memory)
    found = list(check_redis(url))
    assert "maxmemory-policy is allkeys-lru" in errors(iter(found))[0]
    assert [each.problem for each in found if each.level == "warning"] == ["80 % of its memory is used"]


@pytest.mark.parametrize("off_s", [5, -60])
def test_a_clock_that_is_off_is_named(off_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from codexflow.lib.clock import now_s

    monkeypatch.setattr("codexflow.preflight.servers.now_s", lambda: now_s() + off_s)
    found = [each for each in check_redis(settings.ENV.redis_url) if "clock" in each.problem]
    assert [each.level for each in found] == ["warning" if abs(off_s) < 30 else "error"]


class LiteLLM(QuietHandler):
    """Answers probes; `status` of /v1/models without the right key is the class's, `version` its release."""

    refusal: tuple[int, bytes] = (401, b"{}")
    version = "1.110.2"
    alive = 200

    def do_GET(self) -> None:  # noqa: N802 - http.server asks for this name
        status, body = 200, b'{"data": []}'
        if self.path == "/health/liveliness":
            status, body = self.alive, b'"I\'m alive!"'
        elif self.path == "/health/readiness/details":
            body = json.dumps({"litellm_version": self.version}).encode()
        elif self.headers.get("authorization") != f"Bearer {KEY}":
            status, body = self.refusal
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = LoopbackServer(LiteLLM)
    yield server.url
    server.close()


def test_litellm_takes_the_key_or_not(litellm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert errors(check_litellm(litellm, KEY)) == []
    for refusal in ((401, b"{}"), (403, b"{}"), (400, b'{"error": {"type": "no_db_connection"}}')):
        monkeypatch.setattr(LiteLLM, "refusal", refusal)
        found = list(check_litellm(litellm, "sk-wrong-key"))
        assert [each.problem for each in found] == ["LiteLLM refuses LITELLM_API_KEY"]
        assert "create_litellm_key" in found[0].remedy
    monkeypatch.setattr(LiteLLM, "alive", 404)
    assert errors(check_litellm(litellm, KEY))[0].endswith("is not LiteLLM")


def test_a_litellm_that_is_away_is_a_warning_and_a_name_that_is_none_an_error() -> None:
    found = list(check_litellm(f"http://127.0.0.1:{free_port()}", KEY))
    assert [each.level for each in found] == ["warning"]
    assert "callers get 503" in found[0].remedy
    assert errors(check_litellm("http://nowhere.invalid:4000", KEY)) == [
        "LITELLM_URL: there is no host nowhere.invalid"
    ]


@pytest.mark.parametrize(
    ("kind", "said"),
    [("well", ""), ("closed", "does not serve"), ("drops", "does not serve"), ("5xx", "does not serve")],
)
def test_a_mail_server_that_is_away_is_a_warning(kind: str, said: str) -> None:
    server = Server(kind)
    found = list(check_mail(MailServer(host="127.0.0.1", port=server.port)))
    server.close()
    assert [each.level for each in found] == ["warning" if said else "ok"]
    assert said in found[0].problem
    asked = MailServer(host="127.0.0.1", port=server.port, user="postman", password="hidden", is_starttls=True)
    assert "hidden" not in str(list(check_mail(asked)))


def test_a_mail_server_without_what_is_asked_for_is_told() -> None:
    server = Server("well")
    plain = MailServer(host="127.0.0.1", port=server.port)
    for asked in (replace(plain, is_starttls=True), replace(plain, user="postman", password="hidden")):
        found = list(check_mail(asked))
        assert [each.problem for each in found] == [f"TLS or the log-in at 127.0.0.1:{server.port} fails"]
    server.close()
    found = list(check_mail(MailServer(host="nowhere.invalid", port=25)))
    assert "there is no such host" in found[0].problem


def test_releases_of_litellm_that_are_known_to_be_bad(litellm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, level in (("1.82.7", "error"), ("1.107.3", "error"), ("1.109.2", "warning"), ("1.99.0", "warning")):
        monkeypatch.setattr(LiteLLM, "version", version)
        found = [each for each in check_litellm(litellm, KEY) if each.level != "ok"]
        assert [each.level for each in found] == [level], version
    for good in ("1.106.2", "1.108.13", "1.110.2", "1.111.0", "main", ""):
        assert bad_release(good) is None, good


def test_every_entry_of_the_list_says_why_and_what_instead() -> None:
    assert known_bad()
    assert all(each.reason and each.use and each.level in ("error", "warning") for each in known_bad())


@pytest.mark.django_db
def test_the_schema_must_be_that_of_this_release(settings: Any) -> None:
    assert errors(installation.check_schema()) == []
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(name) FROM django_migrations WHERE app = 'billing'")
        head = cursor.fetchone()[0]
        cursor.execute("DELETE FROM django_migrations WHERE app = 'billing' AND name = %s", [head])
    said = errors(installation.check_schema())[0]
    assert said.startswith(f"migrations are missing: billing {head} (the other side ends at ")
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('billing', %s, now())", [head])
        cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('keys', '9999_future', now())")
    said = errors(installation.check_schema())[0]
    assert "newer release: keys 9999_future (the other side ends at 0" in said
    settings.ENV = replace(settings.ENV, newer_schema="accept")
    assert [each.level for each in installation.check_schema()] == ["warning"]


@pytest.mark.django_db
def test_missing_row_level_security_is_an_error_with_its_sql() -> None:
    assert errors(installation.check_isolation()) == []
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE keys_apikey DISABLE ROW LEVEL SECURITY")
    found = list(installation.check_isolation())
    assert "GRANT cfx_tenant TO" in found[0].remedy


def test_folders_that_cannot_be_written_to_are_named(settings: Any, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    settings.ENV = replace(settings.ENV, journal_dir=blocked / "journal", export_dir=tmp_path / "exports")
    assert [each.problem for each in installation.check_files() if each.level == "error"] == [
        f"{blocked / 'journal'} (CFX_JOURNAL_DIR) cannot be written to: Not a directory"
    ]


def test_findings_are_written_for_people_and_for_programs() -> None:
    found = [ok("redis", "fine"), warning("mail", "none", "Set it."), error("database", "wrong", "Line one\nLine two")]
    assert text_of(found).splitlines() == [
        "CodexFlow does not start: 1 problem",
        "  ✗ database: wrong",
        "      Line one",
        "      Line two",
        "  ! mail: none",
        "      Set it.",
        "  ✓ redis: fine",
    ]
    parsed = json.loads(json_of(found))
    assert (parsed["ok"], len(parsed["findings"])) == (False, 3)
    assert parsed["findings"][2] == {
        "part": "database", "level": "error", "problem": "wrong", "remedy": "Line one\nLine two",
    }  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_an_installation_that_has_worked_starts_while_redis_is_away(tmp_path: Path) -> None:
    """A program that is restarted during an outage serves what it may, as those that were not restarted do."""
    away = f"redis://127.0.0.1:{free_port()}/0"
    environ = {**GOOD, "DATABASE_URL": session_database(), "REDIS_URL": away, "CFX_HOME": str(tmp_path)}

    def level(**changes: str) -> str:
        found = preflight({**environ, **changes}, serves_pages=False)
        return next(each.level for each in found if each.part == "redis")

    assert level() == "error"
    HealthCheck.objects.create(ran_at=now())
    assert level() == "warning"
    assert level(LIMITER_FAIL="closed") == "error"


def test_a_wrong_password_of_redis_is_never_borne() -> None:
    wrong_password = error("redis", "the password is wrong", "Compare.")
    assert bearable(wrong_password) == wrong_password
    assert bearable(error("redis", "nobody listens there", "Start it.", may_pass=True)).level == "warning"
    assert bearable(error("database", "away", "", may_pass=True)).level == "error"


def start(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], **GOOD, **changes}  # noqa: TID251 - the only inherited variable
    return subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=90, check=False
    )


def wrong(tmp_path: Path) -> dict[str, str]:
    """Variables with a mistake of every kind; none is worth waiting for."""
    return {
        "CFX_HOME": str(tmp_path),
        "DATABASE_URL": "postgresql://cfx:p@ss/word@127.0.0.1/cfx",
        "REDIS_URL": settings.ENV.redis_url.replace("redis://:", "redis://:hidden"),
        "AUTH_SECRET": "short",
        "HASH_SALT": "cfx-salt-a7b3c9d2e5f8g1h4j6k0m3n5p8q2r4s6",
        "LITELLM_API_KEY": "",
        "LITELLM_WEBHOOK_KEY": "a",
        "LOG_LEVEL": "TRACE",
    }


def test_a_program_says_all_that_is_wrong_on_one_screen_and_ends(tmp_path: Path) -> None:
    done = start("-m", "codexflow.programs", "web", **wrong(tmp_path))
    assert done.returncode == 2
    said = done.stderr
    assert said.splitlines()[0] == "CodexFlow does not start: 7 problems"
    for name in ("DATABASE_URL", "AUTH_SECRET", "HASH_SALT", "LITELLM_API_KEY", "LITELLM_WEBHOOK_KEY", "LOG_LEVEL"):
        assert f"environment: {name}" in said
    assert "redis: Redis at" in said
    assert len(said.splitlines()) < 24
    for secret in ("p@ss", "word@", "hidden", "a7b3c9d2"):
        assert secret not in said
    assert "Traceback" not in said


def test_the_command_says_the_same(tmp_path: Path) -> None:
    done = start("manage.py", "preflight", "--json", **wrong(tmp_path))
    assert done.returncode == 2
    assert len([each for each in json.loads(done.stdout)["findings"] if each["level"] == "error"]) == 7


def test_a_command_without_its_database_ends_in_a_sentence(tmp_path: Path) -> None:
    url = f"postgresql://cfx:a-hidden-password@127.0.0.1:{free_port()}/cfx"
    done = start("manage.py", "migrate", DATABASE_URL=url, REDIS_URL=settings.ENV.redis_url, CFX_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "database: PostgreSQL at 127.0.0.1:" in done.stderr
    assert "nobody listens there" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "hidden" not in done.stderr
