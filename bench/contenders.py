"""Contenders of the bench: the mock itself, nginx, LiteLLM and the gateway, all children of one supervisor."""

import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from bench import tools
from codexflow.dev import litellm, valkey
from codexflow.dev.quickstart import Quickstart
from codexflow.dev.supervisor import Child, ChildSpec, Supervisor
from codexflow.env import REPOSITORY
from tests.support.stack import Stack

MODEL = "gpt-6-luna"
STREAM_CHUNKS, STREAM_GAP_US = 100, 5_000
READY_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A server of chat completions on a port. `parts` are the processes whose CPU counts, by name."""

    name: str
    port: int
    key: str
    parts: dict[str, Child]

    def cpu_s(self) -> dict[str, float]:
        return {name: tools.cpu_s(child.identity.pid) for name, child in self.parts.items() if child.identity}


def all_of(stack: Stack, folder: Path) -> list[Contender]:
    """Start every contender that is installed here and name the missing ones. The house must not have been started."""
    mock = start_mock(stack.supervisor)
    found = [mock]
    stack.upstream_url = f"http://{valkey.LOOPBACK}:{mock.port}"
    if program := tools.nginx():
        found.append(start_nginx(stack.supervisor, program, mock.port, folder))
    else:
        sys.stdout.write("nginx is left out: it is neither installed nor to be had from apt-get\n")
    if litellm.PROGRAM.exists():
        found.append(_litellm(stack, mock.port, folder))
    else:
        sys.stdout.write("LiteLLM is left out: `make litellm-env` installs it\n")
    found.append(_gateway(stack))
    return found


def words(count: int) -> str:
    """Text that says nothing, eight bytes a word."""
    return " ".join(f"word{n % 1000:03d}" for n in range(count))


def body(*, is_stream: bool, model: str = MODEL, user: str = words(75)) -> bytes:
    """An ordinary request; about a kilobyte with the text of `user` that is given here."""
    text = f'{{"model":"{model}","messages":[{{"role":"system","content":"You are a helpful assistant."}},'
    text += f'{{"role":"user","content":"{user}"}}],"temperature":0.2,"max_tokens":256'
    text += ',"stream":true,"stream_options":{"include_usage":true}}' if is_stream else "}"
    return text.encode()


def _started(supervisor: Supervisor, name: str, argv: list[str], environ: dict[str, str], cwd: Path) -> Child:
    return supervisor.start(ChildSpec(name=name, argv=argv, environ=environ, cwd=cwd, is_restarted=False))


def start_mock(supervisor: Supervisor) -> Contender:
    """Start the mock upstream and wait until it responds."""
    port = valkey.free_port()
    argv = [str(tools.compiled("mock")), str(port), str(STREAM_CHUNKS), str(STREAM_GAP_US)]
    child = _started(supervisor, "mock", argv, {}, REPOSITORY)
    supervisor.wait_until(answers_chat(port, ""), child, within_s=READY_WITHIN_S)
    return Contender(name="direct", port=port, key="sk-bench", parts={"mock": child})


_NGINX_CONF = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000; client_body_buffer_size 1m;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream mock {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
                      proxy_buffering off; }}
    }}
}}
"""


def start_nginx(supervisor: Supervisor, program: Path, upstream: int, folder: Path) -> Contender:
    """Start nginx in front of the mock and wait until it responds."""
    port = valkey.free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX_CONF.format(folder=folder, port=port, upstream=upstream))
    argv = [str(program), "-p", str(folder), "-e", str(folder / "nginx.log"), "-c", str(configuration)]
    child = _started(supervisor, "nginx", argv, {"PATH": "/usr/bin:/bin"}, folder)
    supervisor.wait_until(answers_chat(port, ""), child, within_s=READY_WITHIN_S)
    return Contender(name="nginx", port=port, key="sk-bench", parts={"nginx": child})


def _litellm(stack: Stack, upstream: int, folder: Path) -> Contender:
    """Start the proxy as shipped, with the mock as its provider and its usage webhook off."""
    port, key = valkey.free_port(), f"sk-{secrets.token_hex(16)}"
    shipped = yaml.safe_load(litellm.CONFIG.read_text())
    shipped["model_list"] = [
        {
            "model_name": MODEL,
            "litellm_params": {
                "model": f"openai/{MODEL}",
                "api_base": f"http://{valkey.LOOPBACK}:{upstream}/v1",
                "api_key": "sk-bench",
            },
        }
    ]
    del shipped["litellm_settings"]["callbacks"], shipped["callback_settings"]
    configuration = folder / "litellm.yaml"
    configuration.write_text(yaml.safe_dump(shipped))
    environ = litellm.environment(stack.environ, master_key=key)
    argv = litellm.command(configuration, host=valkey.LOOPBACK, port=port)
    child = _started(stack.supervisor, "litellm", argv, environ, folder)
    stack.supervisor.wait_until(answers_chat(port, key), child, within_s=READY_WITHIN_S)
    return Contender(name="litellm", port=port, key=key, parts={"litellm": child})


def _gateway(stack: Stack) -> Contender:
    """Start one web process with everything on, and worker and beat behind it."""
    stack.start_servers()
    stack.start_programs()
    known = Quickstart.read(stack.home)
    assert known is not None  # noqa: S101 - start_servers has written it
    children = stack.children
    parts = {"gateway": children["web"], "valkey": children["valkey"], "worker": children["worker"]}
    return Contender(name="gateway", port=stack.port, key=known.api_key, parts=parts)


def answers_chat(port: int, key: str, model: str = MODEL) -> Callable[[], bool]:
    """Make a probe: one chat request, whose success means ready."""

    def answers() -> bool:
        headers = {"Authorization": f"Bearer {key or 'sk-bench'}", "Content-Type": "application/json"}
        url, sent = f"http://{valkey.LOOPBACK}:{port}/v1/chat/completions", body(is_stream=False, model=model)
        try:
            return httpx.post(url, content=sent, headers=headers, timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    return answers
