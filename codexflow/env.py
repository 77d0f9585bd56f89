"""Operator settings: read once, typed, every problem reported at once.

`settings.py` calls `Env.read(os.environ)`, and `beat.py`, which runs without Django and so without the settings; no
other module reads the environment. In development, where
`manage.py up` starts PostgreSQL and Valkey itself, their addresses come from `$CFX_HOME/services.json`
and the generated secrets from `$CFX_HOME/secrets.json`.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast, get_args
from urllib.parse import urlsplit

from codexflow.lib.cluster import SCHEMES as CLUSTER_SCHEMES
from codexflow.lib.cluster import Cluster, is_cluster
from codexflow.lib.email_url import MailServer, parse_email_url
from codexflow.lib.money import NANOS_PER_USD, parse_usd
from codexflow.lib.sentinel import SCHEMES as SENTINEL_SCHEMES
from codexflow.lib.sentinel import Sentinels, is_sentinel
from codexflow.lib.server_urls import password_of, problem_of, problem_of_web
from codexflow.lib.weak_secrets import REMEDY, weak_secrets

Mode = Literal["development", "production"]
LimiterFail = Literal["bounded", "closed"]
LitellmSync = Literal["spend_logs", "documented", "off"]
# Each is a module in billing/payments/.
PaymentProvider = Literal["manual", "stripe", "iyzico"]
NewerSchema = Literal["refuse", "accept"]
StripeTaxIds = Literal["off", "optional", "required"]
T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parent.parent
MIN_SECRET_LENGTH = 32
MIN_TOKEN_LENGTH = 16
# Default for commands that serve nothing (type checks, `makemigrations`); refused in production.
DEVELOPMENT_SECRET = "codexflow-development-only-secret-0000"  # noqa: S105 - refused outside development
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

# Deprecated name -> current name. Deprecated names work and are logged once.
DEPRECATED = {
    "LITELLM_PROXY_URL": "LITELLM_URL",
    "LITELLM_BASE_URL": "LITELLM_URL",
    "LITELLM_MASTER_KEY": "LITELLM_ADMIN_KEY",
    "NEXTAUTH_URL": "SITE_URL",
    "NEXT_PUBLIC_API_URL": "PUBLIC_API_URL",
}
IGNORED = ("CFX_API_URL",)


def home_of(environ: Mapping[str, str]) -> Path:
    """CFX_HOME, or `.codexflow` beside the code. Needs nothing else to be right."""
    return Path(environ.get("CFX_HOME", "").strip() or REPOSITORY / ".codexflow").expanduser().absolute()


class EnvError(Exception):
    """Some variables are missing or wrong; the message names every one of them."""

    def __init__(self, problems: list[str], *, found: Mapping[str, Any] | None = None) -> None:
        self.problems = problems
        self.found = found or {}  # fields of Env as far as they could be read
        super().__init__("The environment is not usable:\n" + "\n".join(f"  - {line}" for line in problems))


@dataclass(frozen=True, slots=True)
class OAuthApp:
    """OAuth client of this installation at a sign-in provider."""

    client_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seller:
    """Issuer of this installation's invoices."""

    name: str
    address: str
    district: str
    city: str
    country: str  # code of ISO 3166
    tax_id: str
    tax_office: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    """Settings of the operator. Units are in the names."""

    mode: Mode
    home: Path  # CFX_HOME: state of a development installation, journal, generated secrets
    secret_key: str = field(repr=False)  # AUTH_SECRET
    hash_salt: str = field(repr=False)  # HASH_SALT: the HMAC key of API key digests
    hash_salt_previous: str = field(repr=False, default="")
    secret_key_previous: str = field(repr=False, default="")  # AUTH_SECRET_PREVIOUS
    database_url: str = field(repr=False, default="")
    # DATABASE_DIRECT_URL: the server itself, where DATABASE_URL leads to a pooler; empty: DATABASE_URL is the server's.
    database_direct_url: str = field(repr=False, default="")
    # DATABASE_REPLICA_URL: a streaming replica for reads that may be seconds old; empty: there is none.
    database_replica_url: str = field(repr=False, default="")
    replica_lag_s: float = 10.0  # CFX_REPLICA_LAG_S: a replica that is further behind is not read
    redis_url: str = field(repr=False, default="")
    redis_shared_url: str = field(repr=False, default="")  # for what cannot be in a cluster; else the same
    redis_prefix: str = "cfx"  # first part of every Redis key
    config_path: Path = REPOSITORY / "config" / "models.yaml"  # CFX_CONFIG_PATH
    # Files that may have the planner's section, the first one that does: CONFIG_YAML_PATH, HAIKU_CONFIG_PATH, and this.
    planner_paths: tuple[Path, ...] = (Path("config.yaml"),)
    litellm_url: str = ""  # empty: the built-in demo upstream
    litellm_api_key: str = field(repr=False, default="")
    litellm_admin_key: str = field(repr=False, default="")
    is_demo_upstream: bool = False
    litellm_sync: LitellmSync = "spend_logs"  # CFX_LITELLM_SYNC
    # LITELLM_WEBHOOK_KEY: comma-separated, so that a new one works before the old one is gone. None: no webhook.
    webhook_keys: tuple[str, ...] = field(repr=False, default=())
    webhook_allow: tuple[str, ...] = ()  # CFX_WEBHOOK_ALLOW: addresses and networks; empty: from anywhere
    webhook_body_limit_bytes: int = 5 * 1024 * 1024
    webhook_rpm: int = 600  # deliveries a minute from one address
    margin_alarm_percent: int = 2  # a model that costs more than it is charged for, by more than this, is an alarm
    # CFX_PAYMENT_PROVIDERS: comma-separated, the first one is proposed; `none`: nothing is for sale.
    payment_providers: tuple[PaymentProvider, ...] = ("manual",)
    bank_transfer_text: str = ""  # CFX_BANK_TRANSFER_TEXT; empty: customers are asked to contact the operator
    # CFX_STRIPE_*: of one Stripe account. The webhook's secrets are comma-separated, so that they can be rotated.
    stripe_secret_key: str = field(repr=False, default="")
    stripe_webhook_secrets: tuple[str, ...] = field(repr=False, default=())
    stripe_api_base: str = ""  # empty: Stripe's
    stripe_tax_ids: StripeTaxIds = "optional"
    # CFX_IYZICO_*: of one iyzico account. Base URL empty: iyzico's; its sandbox moves no money.
    iyzico_api_key: str = field(repr=False, default="")
    iyzico_secret_key: str = field(repr=False, default="")
    iyzico_base_url: str = ""
    is_demo_checkout: bool = False  # payments by card go to the local Stripe: no money moves
    seller: Seller | None = None  # CFX_SELLER_*; None: no invoices are issued
    tax_rate_bp: int = 0  # CFX_TAX_RATE_BP: tax contained in all prices, in basis points of the net amount
    unmatched_days: int = 90  # retention of reports without a matching request
    metrics_token: str = field(repr=False, default="")  # CFX_METRICS_TOKEN; empty: no /metrics
    host: str = "127.0.0.1"
    port: int = 8000
    web_processes: int = 1
    site_url: str = ""
    public_api_url: str = ""
    allowed_hosts: tuple[str, ...] = ()
    api_host: str = ""  # API_HOST: serves the API only; empty: every host does
    app_host: str = ""  # APP_HOST: the only one that serves pages; empty: every host but API_HOST
    # CFX_TRUSTED_PROXIES: addresses and networks whose X-Forwarded-For and -Proto are trusted
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    mail: MailServer | None = None  # EMAIL_URL
    cors_origins: tuple[str, ...] = ()  # CFX_CORS_ORIGINS: pages that may call /v1; `*`: all
    # CFX_GITHUB_*, CFX_GOOGLE_*: sign-in by these providers. None: neither offered nor reachable.
    github: OAuthApp | None = None
    google: OAuthApp | None = None
    log_level: str = "INFO"
    sentry_dsn: str = field(repr=False, default="")  # SENTRY_DSN; empty: nothing is reported
    # OTEL_EXPORTER_OTLP_*, OTEL_SERVICE_NAME: where traces of calls are sent; empty: there are none.
    otlp_endpoint: str = ""
    otlp_headers: str = field(repr=False, default="")  # name=value, comma-separated
    otel_service_name: str = "codexflow"
    trace_ratio: float = 1.0  # OTEL_TRACES_SAMPLER_ARG: of the calls that do not continue a caller's trace
    journal_dir: Path = Path()
    export_dir: Path = Path()
    static_root: Path | None = None  # CFX_STATIC_ROOT; None: `staticfiles` in production, no collected files elsewhere
    admin_password: str = field(repr=False, default="")
    # The gateway.
    max_connections: int = 10_000  # per process, idle ones included
    header_timeout_s: float = 10.0
    request_body_limit_bytes: int = 10 * 1024 * 1024
    request_body_timeout_s: float = 60.0
    reception_bytes: int = 0  # CFX_RECEPTION_BYTES: room for bodies that are being received, per process; 0: by memory
    answer_limit_bytes: int = 64 * 1024 * 1024
    upstream_connect_s: float = 3.0
    upstream_idle_s: float = 60.0
    upstream_total_s: float = 600.0
    stream_ping_s: float = 15.0
    redis_timeout_ms: int = 100
    key_cache_fresh_s: float = 600.0
    key_cache_stale_s: float = 900.0
    lease_ms: int = 15_000
    limiter_fail: LimiterFail = "bounded"  # LIMITER_FAIL
    newer_schema: NewerSchema = "refuse"  # CFX_NEWER_SCHEMA: start on a schema that a newer release has migrated
    limiter_processes: int = 0  # CFX_LIMITER_PROCESSES; 0 is replaced by web_processes
    outage_allowance_nanos: int = NANOS_PER_USD  # CFX_OUTAGE_ALLOWANCE_USD
    heartbeat_s: float = 5.0
    drain_grace_s: float = 120.0
    journal_ship_after_s: float = 10.0
    live_heartbeat_s: float = 15.0
    four_eyes_above_nanos: int | None = None  # CFX_FOUR_EYES_ABOVE_USD; None: operators book alone
    hooks_allow_loopback: bool = False  # CFX_HOOKS_ALLOW_LOOPBACK: webhooks to this machine; never in production
    notices: tuple[str, ...] = ()  # deprecated and ignored variables, for the log

    @property
    def is_production(self) -> bool:
        return self.mode == "production"

    @property
    def salts(self) -> tuple[str, ...]:
        """Salts that a key's digest may have been made with, the current one first."""
        return tuple(salt for salt in (self.hash_salt, self.hash_salt_previous) if salt)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Build from a mapping such as os.environ. Raises EnvError naming every bad variable at once."""
        return cls(**_Reader(environ).fields())


def _networks(text: str) -> tuple[str, ...]:
    """Parse comma-separated addresses and networks. Raises ValueError for anything else."""
    found = tuple(each.strip() for each in text.split(",") if each.strip())
    for each in found:
        ip_network(each)
    return found


MIN_IYZICO_KEY_LENGTH = 16
_STRIPE_KEY = re.compile(r"(?:sk|rk)_(?:test|live)_[A-Za-z0-9_]{8,}")
_STRIPE_WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=_-]{8,}")
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


_HOST_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""  # reported already


def _switch(text: str) -> bool:
    """Parse 1 or 0. Raises ValueError for anything else."""
    if text not in ("0", "1"):
        raise ValueError("give 1 or 0")
    return text == "1"


def _origins(text: str) -> tuple[str, ...]:
    """Parse comma-separated origins as browsers send them, or `*`. Raises ValueError for anything else."""
    found = tuple(each.strip().rstrip("/").lower() for each in text.split(",") if each.strip())
    for each in found:
        if each != "*" and not _ORIGIN.fullmatch(each):
            raise ValueError(f"{each!r} is no origin such as https://app.example.com")
    return found


class _Reader:
    """Reads variables and collects problems instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[str] = []
        self.notices: list[str] = []

    def fields(self) -> dict[str, Any]:
        home = home_of(self.environ)
        services = self.json_file(home / "services.json")
        secrets = self.json_file(home / "secrets.json")
        mode = self.mode(services)
        found: dict[str, Any] = {
            "mode": mode,
            "home": home,
            "secret_key": self.secret("AUTH_SECRET", mode, secrets.get("auth_secret")),
            "hash_salt": self.secret("HASH_SALT", mode, secrets.get("hash_salt")),
            "hash_salt_previous": self.text("HASH_SALT_PREVIOUS"),
            "secret_key_previous": self.text("AUTH_SECRET_PREVIOUS"),
            "database_url": self.server_url("DATABASE_URL", ("postgres", "postgresql"), services.get("database_url")),
            "database_direct_url": self.server_url("DATABASE_DIRECT_URL", ("postgres", "postgresql"), None),
            "database_replica_url": self.server_url("DATABASE_REPLICA_URL", ("postgres", "postgresql"), None),
            **self.redis_urls(services),
            "litellm_url": self.upstream_url(services),
            "litellm_api_key": self.header_key("LITELLM_API_KEY") or services.get("litellm_api_key", ""),
            "litellm_admin_key": self.header_key("LITELLM_ADMIN_KEY", "LITELLM_MASTER_KEY"),
            "webhook_keys": tuple(key.strip() for key in self.text("LITELLM_WEBHOOK_KEY").split(",") if key.strip()),
            "is_demo_upstream": bool(services.get("is_demo_upstream")) and not self.text("LITELLM_URL"),
            "site_url": self.url("SITE_URL", ("http", "https"), None, "NEXTAUTH_URL"),
            "public_api_url": self.url("PUBLIC_API_URL", ("http", "https"), None, "NEXT_PUBLIC_API_URL"),
            "allowed_hosts": tuple(host.strip() for host in self.text("ALLOWED_HOSTS").split(",") if host.strip()),
            "github": self.oauth_app("CFX_GITHUB"),
            "google": self.oauth_app("CFX_GOOGLE"),
            "admin_password": self.text("CFX_ADMIN_PASSWORD"),
            # A file of variables has one line for each.
            "bank_transfer_text": self.text("CFX_BANK_TRANSFER_TEXT").replace("\\n", "\n"),
            **self.stripe(services, mode),
            "iyzico_api_key": self.text("CFX_IYZICO_API_KEY"),
            "iyzico_secret_key": self.text("CFX_IYZICO_SECRET_KEY"),
            "iyzico_base_url": self.url(
                "CFX_IYZICO_BASE_URL", ("https",) if mode == "production" else ("http", "https"), None
            ),
            "seller": self.seller(),
            "sentry_dsn": self.url("SENTRY_DSN", ("http", "https"), None),
            "otlp_endpoint": self.url("OTEL_EXPORTER_OTLP_ENDPOINT", ("http", "https"), None),
            "otlp_headers": self.text("OTEL_EXPORTER_OTLP_HEADERS"),
            "journal_dir": Path(self.text("CFX_JOURNAL_DIR") or home / "journal"),
            "planner_paths": (
                *(Path(path) for name in ("CONFIG_YAML_PATH", "HAIKU_CONFIG_PATH") if (path := self.text(name))),
                Path("config.yaml"),
            ),
            "export_dir": Path(self.text("CFX_EXPORT_DIR") or home / "exports"),
            "static_root": Path(root) if (root := self.text("CFX_STATIC_ROOT")) else None,
        }
        self.optional(found, "redis_prefix", "CFX_REDIS_PREFIX", self.prefix)
        self.optional(found, "config_path", "CFX_CONFIG_PATH", Path)
        self.optional(found, "api_host", "API_HOST", self.host_name)
        self.optional(found, "app_host", "APP_HOST", self.host_name)
        self.public_addresses(found)
        self.optional(found, "host", "HOST", self.bind_address)
        self.optional(found, "port", "PORT", self.port)
        self.optional(found, "log_level", "LOG_LEVEL", self.log_level)
        self.optional(found, "otel_service_name", "OTEL_SERVICE_NAME", str)
        self.optional(found, "trace_ratio", "OTEL_TRACES_SAMPLER_ARG", _within(float, 0.0, 1.0))
        self.optional(found, "trusted_proxies", "CFX_TRUSTED_PROXIES", _networks)
        self.optional(found, "webhook_allow", "CFX_WEBHOOK_ALLOW", _networks)
        self.optional(found, "four_eyes_above_nanos", "CFX_FOUR_EYES_ABOVE_USD", self.allowance)
        self.optional(found, "hooks_allow_loopback", "CFX_HOOKS_ALLOW_LOOPBACK", _switch)
        self.optional(found, "cors_origins", "CFX_CORS_ORIGINS", _origins)
        self.optional(found, "metrics_token", "CFX_METRICS_TOKEN", self.metrics_token)
        self.optional(found, "payment_providers", "CFX_PAYMENT_PROVIDERS", self.payment_providers)
        self.optional(found, "stripe_tax_ids", "CFX_STRIPE_TAX_IDS", self.stripe_tax_ids)
        self.require_stripe_secrets(found)
        self.require_iyzico_keys(found)
        self.optional(found, "litellm_sync", "CFX_LITELLM_SYNC", self.litellm_sync)
        self.optional(found, "mail", "EMAIL_URL", parse_email_url)
        self.optional(found, "limiter_fail", "LIMITER_FAIL", self.limiter_fail)
        self.optional(found, "newer_schema", "CFX_NEWER_SCHEMA", self.newer_schema)
        self.optional(found, "outage_allowance_nanos", "CFX_OUTAGE_ALLOWANCE_USD", self.allowance)
        for name, low, high in _INTEGERS:
            self.optional(found, name, f"CFX_{name.upper()}", _within(int, low, high))
        for name, least, most in _SECONDS:
            self.optional(found, name, f"CFX_{name.upper()}", _within(float, least, most))
        # Fewer than run here would give each of them too large a share.
        found["limiter_processes"] = max(found.get("limiter_processes") or 1, found.get("web_processes", 1))
        if mode == "production" and found.get("hooks_allow_loopback"):
            self.problems.append("CFX_HOOKS_ALLOW_LOOPBACK is for development: customers could reach this machine")
        if mode == "production":
            self.require_production(found)
            if not found["site_url"] and not found["allowed_hosts"]:
                self.notices.append("neither SITE_URL nor ALLOWED_HOSTS is set: pages answer only to localhost")
        self.notices += [
            f"{name} is ignored: one process serves pages and gateway" for name in IGNORED if self.text(name)
        ]
        if self.problems:
            raise EnvError(self.problems, found=found)
        found["notices"] = tuple(self.notices)
        return found

    def text(self, name: str, *old_names: str) -> str:
        """Value of a variable, or of one of its old names, or an empty string."""
        for candidate in (name, *old_names):
            value = self.environ.get(candidate, "").strip()
            if value:
                if candidate in DEPRECATED:
                    self.notices.append(f"{candidate} is deprecated: use {DEPRECATED[candidate]}")
                return value
        return ""

    def header_key(self, name: str, *old_names: str) -> str:
        """Read a key that is sent as a header."""
        value = self.text(name, *old_names)
        if not (value.isascii() and value.isprintable()) or " " in value:
            self.problems.append(f"{name} has characters that no header can have: letters, digits and signs only")
        return value

    def optional(self, found: dict[str, Any], key: str, name: str, parse: Callable[[str], Any]) -> None:
        value = self.text(name)
        if not value:
            return
        try:
            found[key] = parse(value)
        except ValueError as exc:
            self.problems.append(f"{name}: {exc}")

    def mode(self, services: Mapping[str, Any]) -> Mode:
        """CFX_ENV if set; otherwise production if DATABASE_URL is set by hand, so that forgetting CFX_ENV is safe."""
        value = self.text("CFX_ENV")
        if value not in ("", "development", "production"):
            self.problems.append(f"CFX_ENV is {value!r}; it may be development or production")
        if value:
            return "production" if value == "production" else "development"
        return "production" if self.text("DATABASE_URL") and not services else "development"

    def secret(self, name: str, mode: Mode, generated: Any) -> str:
        value = self.text(name)
        if not value and mode == "development":
            return str(generated or DEVELOPMENT_SECRET)
        if not value:
            self.problems.append(f"{name} is missing: set at least {MIN_SECRET_LENGTH} random characters")
        elif len(value) < MIN_SECRET_LENGTH:
            self.problems.append(f"{name} has {len(value)} characters; at least {MIN_SECRET_LENGTH} are needed")
        elif mode == "production" and value == DEVELOPMENT_SECRET:
            self.problems.append(f"{name} is the one of development: {REMEDY}")
        return value

    def url(self, name: str, schemes: tuple[str, ...], fallback: Any, *old_names: str) -> str:
        value = self.text(name, *old_names) or str(fallback or "")
        if value:
            try:
                scheme = urlsplit(value).scheme
            except ValueError:
                scheme = ""
            if scheme not in schemes and value.partition("://")[0] not in schemes:
                self.problems.append(f"{name} must begin with {' or '.join(s + '://' for s in schemes)}")
            elif "https" in schemes and (problem := problem_of_web(value)):
                self.problems.append(f"{name}: {problem}")
        return value.rstrip("/")

    def server_url(self, name: str, schemes: tuple[str, ...], fallback: Any) -> str:
        """Read the address of a server with a password inside."""
        before = len(self.problems)
        value = self.url(name, schemes, fallback)
        # PostgreSQL's client takes `#` for an ordinary character; an address without a host has it in its query.
        problem = problem_of(value, keeps_hash="postgresql" in schemes) if value else None
        if problem and len(self.problems) == before:
            self.problems.append(f"{name}: {problem}")
        return value

    def redis_urls(self, services: Mapping[str, Any]) -> dict[str, str]:
        """Read the addresses of Redis: the gateway's, which may be a cluster, and that of what cannot be in one."""
        url = self.redis_url("REDIS_URL", (*SENTINEL_SCHEMES, *CLUSTER_SCHEMES), services.get("redis_url"))
        shared = self.redis_url("REDIS_SHARED_URL", SENTINEL_SCHEMES, services.get("redis_shared_url"))
        if is_cluster(url) and not shared and not self.is_reported("REDIS_SHARED_URL"):
            self.problems.append(
                "REDIS_SHARED_URL is required while REDIS_URL is a cluster: a server, or one behind Sentinel, for"
                " Celery, the cache and the live tail, which need numbered databases"
            )
        return {"redis_url": url, "redis_shared_url": shared or url}

    def redis_url(self, name: str, more_schemes: tuple[str, ...], fallback: Any) -> str:
        """Read an address of Redis: of one server, of the sentinels that know the primary, or of a cluster's nodes."""
        before = len(self.problems)
        value = self.server_url(name, ("redis", "rediss", *more_schemes), fallback)
        if len(self.problems) > before:
            return value
        has_several = "," in value.partition("://")[2].partition("/")[0].rpartition("@")[2]
        if has_several and not (is_sentinel(value) or is_cluster(value)):
            self.problems.append(
                f"{name}: several hosts are sentinels, whose address begins with redis+sentinel://,"
                " or nodes of a cluster, whose address begins with redis+cluster://"
            )
        try:
            if is_sentinel(value):
                Sentinels.parse(value)
            elif is_cluster(value):
                Cluster.parse(value)
            elif not re.fullmatch("/?[0-9]*", urlsplit(value).path):
                self.problems.append(f"{name}: behind host and port stands the number of a database, such as /0")
        except ValueError as exc:
            self.problems.append(f"{name}: {exc}")
        return value

    def oauth_app(self, prefix: str) -> OAuthApp | None:
        names = f"{prefix}_CLIENT_ID", f"{prefix}_CLIENT_SECRET"
        client_id, secret = (self.text(name) for name in names)
        if client_id and secret:
            return OAuthApp(client_id, secret)
        if client_id or secret:
            missing, given = names if secret else reversed(names)
            self.problems.append(f"{missing} is missing: {given} alone lets nobody sign in")
        return None

    def stripe(self, services: Mapping[str, Any], mode: Mode) -> dict[str, Any]:
        """Read the Stripe account: the operator's, or that of `make run` where nothing about payments is set."""
        key, secrets = self.text("CFX_STRIPE_SECRET_KEY"), self.text("CFX_STRIPE_WEBHOOK_SECRET")
        base = self.url("CFX_STRIPE_API_BASE", ("https",) if mode == "production" else ("http", "https"), None)
        demo = services.get("stripe_secret_key")
        if demo and mode == "development" and not (key or secrets or base or self.text("CFX_PAYMENT_PROVIDERS")):
            return {
                "payment_providers": ("stripe", "manual"),
                "stripe_secret_key": demo,
                "stripe_webhook_secrets": (services["stripe_webhook_secret"],),
                "stripe_api_base": services["stripe_api_base"],
                "is_demo_checkout": True,
            }
        return {
            "stripe_secret_key": key,
            "stripe_webhook_secrets": tuple(each.strip() for each in secrets.split(",") if each.strip()),
            "stripe_api_base": base,
        }

    def require_stripe_secrets(self, found: Mapping[str, Any]) -> None:
        """Refuse Stripe without both secrets: a webhook without one would take anybody's word for a payment."""
        if "stripe" not in found.get("payment_providers", ()):
            return
        if not _STRIPE_KEY.fullmatch(found["stripe_secret_key"]):
            self.problems.append("CFX_STRIPE_SECRET_KEY must begin with sk_test_, sk_live_, rk_test_ or rk_live_")
        if found["mode"] == "production" and not found["site_url"]:
            self.problems.append("SITE_URL is required for stripe: customers come back to it from the checkout")
        secrets = found["stripe_webhook_secrets"]
        if not secrets or not all(_STRIPE_WEBHOOK_SECRET.fullmatch(each) for each in secrets):
            self.problems.append(
                "CFX_STRIPE_WEBHOOK_SECRET must be the endpoint's signing secret, which begins with whsec_"
            )

    def require_iyzico_keys(self, found: Mapping[str, Any]) -> None:
        """Refuse iyzico without both keys: its responses are proved by one of them."""
        if "iyzico" not in found.get("payment_providers", ()):
            return
        self.problems += [
            f"CFX_IYZICO_{name.upper()} is required for iyzico"
            for name in ("api_key", "secret_key")
            if len(found[f"iyzico_{name}"]) < MIN_IYZICO_KEY_LENGTH
        ]
        if found["mode"] == "production" and not found["site_url"]:
            self.problems.append("SITE_URL is required for iyzico: customers come back to it from the checkout")

    def seller(self) -> Seller | None:
        facts = {
            name: self.text(f"CFX_SELLER_{name.upper()}")
            for name in ("name", "address", "district", "city", "country", "tax_id", "tax_office")
        }
        needed = ("name", "address", "city", "country", "tax_id")
        if not any(facts.values()):
            return None
        if missing := [f"CFX_SELLER_{name.upper()}" for name in needed if not facts[name]]:
            self.problems.append(f"{', '.join(missing)}: missing, while another CFX_SELLER_ variable is set")
        if facts["country"] and not re.fullmatch("[A-Z]{2}", facts["country"]):
            self.problems.append(f"CFX_SELLER_COUNTRY: {facts['country']!r} is no code of two capitals such as TR")
        facts["address"] = facts["address"].replace("\\n", "\n")
        return Seller(**facts)

    def upstream_url(self, services: Mapping[str, Any]) -> str:
        return self.url(
            "LITELLM_URL",
            ("http", "https"),
            services.get("litellm_url"),
            "LITELLM_PROXY_URL",
            "LITELLM_BASE_URL",
        )

    def require_production(self, found: dict[str, Any]) -> None:
        """Refuse what development may leave out: addresses, LiteLLM's key, and secrets that are none."""
        for name, key, what in (
            ("DATABASE_URL", "database_url", "postgresql://user:password@host:5432/database"),
            ("REDIS_URL", "redis_url", "redis://:password@host:6379/0"),
            ("LITELLM_URL", "litellm_url", "LiteLLM's address, such as http://litellm:4000"),
            ("LITELLM_API_KEY", "litellm_api_key", "LiteLLM's master key, or a virtual key"),
        ):
            if not found[key]:
                self.problems.append(f"{name} is required in production: {what}")
        if found["litellm_url"].partition("?")[0].rstrip("/").endswith("/v1"):
            self.problems.append("LITELLM_URL must end before /v1: paths are added to it")
        if "*" in found["allowed_hosts"]:
            self.problems.append("ALLOWED_HOSTS may not be *: name the hosts, or leave it empty and set SITE_URL")
        for name, key in (("HASH_SALT", "hash_salt"), ("AUTH_SECRET", "secret_key")):
            if found[key] and found[key] == found[f"{key}_previous"]:
                self.problems.append(f"{name}_PREVIOUS is the same as {name}: leave it empty, or set the older one")
        webhook_keys = {
            "LITELLM_WEBHOOK_KEY" + (f" (number {n})" if n > 1 else ""): key
            for n, key in enumerate(found["webhook_keys"], 1)
        }
        for name, key in webhook_keys.items():
            if len(key) < MIN_TOKEN_LENGTH:
                said = f"{name} has {len(key)} characters; at least {MIN_TOKEN_LENGTH} are needed"
                self.problems.append(f"{said}. LiteLLM reads the same variable")
        passwords = {
            f"the password in {name}": password_of(found[key])
            for name, key in (("DATABASE_URL", "database_url"), ("REDIS_URL", "redis_url"))
            if not self.is_reported(name)
        }
        # One password for both is allowed: both may be one server, or be run by the same people.
        shared_password = password_of(found["redis_shared_url"]) if not self.is_reported("REDIS_SHARED_URL") else ""
        if shared_password not in passwords.values():
            passwords["the password in REDIS_SHARED_URL"] = shared_password
        admin_key = found["litellm_admin_key"]
        secrets = {
            "AUTH_SECRET": found["secret_key"],
            "HASH_SALT": found["hash_salt"],
            "LITELLM_API_KEY": found["litellm_api_key"],
            # One key for both is allowed: LiteLLM's master key.
            "LITELLM_ADMIN_KEY": "" if admin_key == found["litellm_api_key"] else admin_key,
            "CFX_METRICS_TOKEN": found.get("metrics_token", ""),
            **webhook_keys,
            **passwords,
            "CFX_ADMIN_PASSWORD": found["admin_password"],
        }
        unreported = {name: secret for name, secret in secrets.items() if not self.is_reported(name)}
        self.problems += weak_secrets(unreported, needs_variety=frozenset({"AUTH_SECRET", "HASH_SALT", *webhook_keys}))

    def is_reported(self, name: str) -> bool:
        return any(problem.startswith(name) for problem in self.problems)

    def public_addresses(self, found: dict[str, Any]) -> None:
        """Complete the public addresses by the host names, and refuse those that contradict them."""
        api, app = found.get("api_host", ""), found.get("app_host", "")
        if app and not found["site_url"]:
            found["site_url"] = f"https://{app}"
        if api and not found["public_api_url"]:
            scheme = urlsplit(found["site_url"]).scheme or "https"
            found["public_api_url"] = f"{scheme}://{api}"
        if api and api == app:
            self.problems.append("API_HOST and APP_HOST are the same: leave both empty, and one host serves everything")
        for name, host, key, url in (
            ("APP_HOST", app, "site_url", "SITE_URL"),
            ("API_HOST", api, "public_api_url", "PUBLIC_API_URL"),
        ):
            if host and _host_of(found[key]) != host:
                self.problems.append(f"{name} is {host}, but {url} names another host: set both to the same")
        if api and _host_of(found["site_url"]) == api:
            self.problems.append("API_HOST is the host of SITE_URL: it serves no pages, so SITE_URL must name another")

    @staticmethod
    def bind_address(value: str) -> str:
        try:
            ip_address(value)
        except ValueError:
            if not _HOST_NAME.fullmatch(value.lower()):
                raise ValueError(f"{value!r} is no address to listen at, such as 0.0.0.0") from None
        return value

    @staticmethod
    def host_name(value: str) -> str:
        name = value.lower().rstrip(".")
        if not _HOST_NAME.fullmatch(name):
            raise ValueError(f"{value!r} is no host name such as api.example.com, without https:// and port")
        return name

    def json_file(self, path: Path) -> Mapping[str, Any]:
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            self.problems.append(f"{path.name} under CFX_HOME cannot be read: {exc.__class__.__name__}")
            return {}
        return content if isinstance(content, dict) else {}

    @staticmethod
    def port(value: str) -> int:
        if not value.isdecimal() or not 1 <= int(value) <= 65535:
            raise ValueError(f"{value!r} is not a port between 1 and 65535")
        return int(value)

    @staticmethod
    def log_level(value: str) -> str:
        if value.upper() not in LOG_LEVELS:
            raise ValueError(f"{value!r} is not one of {', '.join(LOG_LEVELS)}")
        return value.upper()

    @staticmethod
    def limiter_fail(value: str) -> LimiterFail:
        if value not in ("bounded", "closed"):
            raise ValueError(f"{value!r} is neither bounded nor closed")
        return "closed" if value == "closed" else "bounded"

    @staticmethod
    def newer_schema(value: str) -> NewerSchema:
        if value not in ("refuse", "accept"):
            raise ValueError(f"{value!r} is neither refuse nor accept")
        return "accept" if value == "accept" else "refuse"

    @staticmethod
    def litellm_sync(value: str) -> LitellmSync:
        if value not in get_args(LitellmSync):
            raise ValueError(f"{value!r} is none of {', '.join(get_args(LitellmSync))}")
        return cast(LitellmSync, value)

    @staticmethod
    def payment_providers(value: str) -> tuple[PaymentProvider, ...]:
        if value == "none":
            return ()
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
        for name in names:
            if name not in get_args(PaymentProvider):
                raise ValueError(f"{name!r} is none of {', '.join(get_args(PaymentProvider))}")
        if not names:
            raise ValueError(f"{value!r} names no provider; `none` sells nothing")
        return cast(tuple[PaymentProvider, ...], names)

    @staticmethod
    def stripe_tax_ids(value: str) -> StripeTaxIds:
        if value not in get_args(StripeTaxIds):
            raise ValueError(f"{value!r} is none of {', '.join(get_args(StripeTaxIds))}")
        return cast(StripeTaxIds, value)

    @staticmethod
    def metrics_token(value: str) -> str:
        if len(value) < MIN_TOKEN_LENGTH:
            raise ValueError(f"it has {len(value)} characters; at least {MIN_TOKEN_LENGTH} are needed")
        return value

    @staticmethod
    def allowance(value: str) -> int:
        nanos = parse_usd(value)
        if not 0 <= nanos < 2**53:
            raise ValueError(f"{value!r} is not an amount that an allowance can have")
        return nanos

    @staticmethod
    def prefix(value: str) -> str:
        if not value.isidentifier():
            raise ValueError(f"{value!r} may have letters, digits and underscores only")
        return value


# Tunables with their accepted range; the variable is CFX_ and the name in capitals.
_INTEGERS = (
    ("web_processes", 1, 64),
    ("limiter_processes", 1, 10_000),
    ("max_connections", 10, 1_000_000),
    ("request_body_limit_bytes", 1024, 1 << 30),
    ("reception_bytes", 1 << 20, 1 << 40),
    ("answer_limit_bytes", 1024, 1 << 30),
    ("redis_timeout_ms", 10, 10_000),
    ("webhook_body_limit_bytes", 1024, 1 << 28),
    ("webhook_rpm", 1, 1_000_000),
    ("unmatched_days", 1, 3_650),
    ("margin_alarm_percent", 0, 1_000),
    ("tax_rate_bp", 0, 10_000),
    ("lease_ms", 1_000, 300_000),
)
_SECONDS = (
    ("header_timeout_s", 0.1, 3600),
    ("request_body_timeout_s", 0.1, 3600),
    ("upstream_connect_s", 0.1, 60),
    ("upstream_idle_s", 0.1, 3600),
    ("upstream_total_s", 1, 86_400),
    ("stream_ping_s", 0.05, 3600),
    ("key_cache_fresh_s", 0, 3600),
    ("key_cache_stale_s", 0, 86_400),
    ("heartbeat_s", 0.1, 60),
    ("drain_grace_s", 0, 3600),
    ("journal_ship_after_s", 0.1, 600),
    ("live_heartbeat_s", 0.1, 30),
    ("replica_lag_s", 0.5, 3600),
)


def _within(kind: Callable[[str], Any], low: float, high: float) -> Callable[[str], Any]:
    def parse(value: str) -> Any:
        try:
            number = kind(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a number") from None
        if not low <= number <= high:
            raise ValueError(f"{value} is outside {low:g} to {high:g}")
        return number

    return parse


def report(env: Env, logger: logging.Logger) -> None:
    """Log deprecated, ignored and missing variables, once."""
    for notice in env.notices:
        logger.warning("env.notice", extra={"notice": notice})
