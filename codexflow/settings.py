"""Django settings, all derived from ENV. Importing this has no side effects."""

import os
from typing import Any
from urllib.parse import urlsplit

import django_stubs_ext
from django.templatetags.static import static
from django.utils.translation import gettext_lazy as _
from psycopg.conninfo import conninfo_to_dict

from codexflow.env import REPOSITORY, Env
from codexflow.lib.log import logging_config
from codexflow.lib.redis import channels_host, database_url

django_stubs_ext.monkeypatch()

ENV = Env.read(os.environ)  # noqa: TID251 - the only reader

SECRET_KEY = ENV.secret_key
# Sessions, links in mails and authenticator apps of the time before a rotation go on working.
SECRET_KEY_FALLBACKS = [ENV.secret_key_previous] if ENV.secret_key_previous else []
DEBUG = False
ALLOWED_HOSTS = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    *ENV.allowed_hosts,
    *(host for url in (ENV.site_url, ENV.public_api_url) if (host := urlsplit(url).hostname)),
    *(host for host in (ENV.api_host, ENV.app_host) if host),
]

# Sign-in providers: those with a configured OAuth client.
_PROVIDERS = {name: app for name, app in (("github", ENV.github), ("google", ENV.google)) if app}

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    # Always installed, so that deleting a user also deletes connections of a provider that is no longer configured.
    "allauth.socialaccount",
    *(f"allauth.socialaccount.providers.{name}" for name in _PROVIDERS),
    "csp",
    "django_cotton.apps.SimpleAppConfig",
    "django_htmx",
    "lucide",
    "template_partials.apps.SimpleAppConfig",
    "rest_framework",
    "drf_spectacular",
    "codexflow",
    "accounts",
    "billing",
    "keys",
    "logs",
    "routing",
    "adminpanel",
    *([] if ENV.is_production else ["codexflow.dev"]),
]
# Function from an Organization to its number of seats. Named here, because accounts may not import billing.
SEAT_LIMIT = "billing.selectors.seats_of"

# `/v1/*` bypasses all of them (asgi.py).
MIDDLEWARE = [
    "codexflow.pages.middleware.RequestIdMiddleware",
    "csp.middleware.CSPMiddleware",
    # Before whatever asks for the host.
    "codexflow.pages.middleware.HostMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "accounts.middleware.PreferencesMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "allauth.usersessions.middleware.UserSessionsMiddleware",
    "accounts.middleware.PasswordChangeMiddleware",
    "adminpanel.impersonation.ViewingMiddleware",
    "codexflow.pages.middleware.OperatorPagesMiddleware",
    "codexflow.pages.middleware.MethodPageMiddleware",
    "codexflow.pages.middleware.ComplexFormsMiddleware",
]
ROOT_URLCONF = "codexflow.urls"
# Included below /dev/. Named here and not imported: the production image leaves codexflow/dev out.
DEVELOPMENT_URLS = [] if ENV.is_production else ["codexflow.dev.urls"]
ASGI_APPLICATION = "codexflow.asgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [REPOSITORY / "templates"],
        "OPTIONS": {
            "loaders": [
                (
                    "template_partials.loader.Loader",
                    [
                        (
                            "django.template.loaders.cached.Loader",
                            [
                                "django_cotton.cotton_loader.Loader",
                                "django.template.loaders.filesystem.Loader",
                                "django.template.loaders.app_directories.Loader",
                            ],
                        )
                    ],
                )
            ],
            "builtins": [
                "django_cotton.templatetags.cotton",
                "django.templatetags.i18n",
                "django.templatetags.static",
                "template_partials.templatetags.partials",
                "codexflow.templatetags.show",
            ],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "codexflow.pages.context.page",
            ],
        },
    }
]


def _database(url: str) -> dict[str, Any]:
    conninfo = conninfo_to_dict(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": conninfo.pop("dbname", "codexflow"),
        "USER": conninfo.pop("user", ""),
        "PASSWORD": conninfo.pop("password", ""),
        "HOST": conninfo.pop("host", ""),
        "PORT": conninfo.pop("port", ""),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"connect_timeout": 3, "tcp_user_timeout": 10_000, **conninfo},
    }


DATABASES: dict[str, dict[str, Any]] = {"default": _database(ENV.database_url)}
# Behind a pooler a connection is ours for a transaction only. What needs a session uses `direct` (codexflow/lib/db.py).
HAS_POOLER = bool(ENV.database_direct_url)
if HAS_POOLER:
    DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True
    DATABASES["direct"] = {**_database(ENV.database_direct_url), "TEST": {"MIRROR": "default"}}
# What may be seconds old is read from `replica` (codexflow/lib/replica.py).
HAS_REPLICA = bool(ENV.database_replica_url)
if HAS_REPLICA:
    DATABASES["replica"] = {**_database(ENV.database_replica_url), "TEST": {"MIRROR": "default"}}
    DATABASES["replica"]["OPTIONS"]["connect_timeout"] = 1
    DATABASES["replica"]["DISABLE_SERVER_SIDE_CURSORS"] = True
    DATABASE_ROUTERS = ["codexflow.lib.replica.Router"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
    {"NAME": "accounts.passwords.PrintedPasswordValidator"},
]

# Sign-in by e-mail and password. A mailed code verifies the address if a mail server is configured.
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_ADAPTER = "accounts.adapters.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory" if ENV.mail else "none"
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = ENV.mail is not None
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_RESEND = 5
# Whoever mistypes stays at the form. A code has eight characters of 32: ten guesses are nothing.
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_MAX_ATTEMPTS = ACCOUNT_PASSWORD_RESET_BY_CODE_MAX_ATTEMPTS = 10
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_TIMEOUT = ACCOUNT_PASSWORD_RESET_BY_CODE_TIMEOUT = 15 * 60
ACCOUNT_PASSWORD_RESET_BY_CODE_ENABLED = True
ACCOUNT_PREVENT_ENUMERATION = True
# `ip` is the client's address (of IPv6 its /64). `key` is, for a password, account and address together, so that nobody
# locks another one out; for a second factor, which is asked for after the password only, the account.
ACCOUNT_RATE_LIMITS = {
    "login_failed": "10/m/ip,60/h/ip,100/d/key",
    # allauth's limit by account would let anybody keep another one from a new password.
    "reset_password": "5/m/ip,20/h/ip",
    "redeem_code": "10/h/user",  # codes can be guessed
}
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = False
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_EMAIL_NOTIFICATIONS = True
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "CodexFlow"
MFA_FORMS = {"add_webauthn": "accounts.passkeys.AddKeyForm", "edit_webauthn": "accounts.passkeys.EditKeyForm"}
# Without a mail server no address is ever verified; a second factor is better than none.
MFA_ALLOW_UNVERIFIED_EMAIL = ENV.mail is None
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not ENV.is_production
MFA_ADAPTER = "accounts.adapters.MfaAdapter"
# Whoever opens the operators' pages can do harm to all customers.
OPERATORS_NEED_SECOND_FACTOR = ENV.is_production
USERSESSIONS_TRACK_ACTIVITY = False
SOCIALACCOUNT_ADAPTER = "accounts.adapters.SocialAccountAdapter"
SOCIALACCOUNT_FORMS = {"disconnect": "accounts.connections.DisconnectForm"}
SOCIALACCOUNT_PROVIDERS: dict[str, dict[str, Any]] = {
    name: {"APP": {"client_id": app.client_id, "secret": app.secret}, "OAUTH_PKCE_ENABLED": True}
    for name, app in _PROVIDERS.items()
}
# A provider's address never connects to an existing user by itself (accounts/adapters.py).
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = False
SOCIALACCOUNT_LOGIN_ON_GET = False
SOCIALACCOUNT_STORE_TOKENS = False

if ENV.mail:
    EMAIL_HOST, EMAIL_PORT = ENV.mail.host, ENV.mail.port
    EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = ENV.mail.user, ENV.mail.password
    EMAIL_USE_SSL, EMAIL_USE_TLS = ENV.mail.is_tls, ENV.mail.is_starttls
    EMAIL_BACKEND = "accounts.smtp.EmailBackend"
    EMAIL_TIMEOUT = 5
    DEFAULT_FROM_EMAIL = SERVER_EMAIL = ENV.mail.sender
elif ENV.is_production:
    # Mail is discarded; system check accounts.W001 warns of it.
    EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
else:
    EMAIL_BACKEND = "codexflow.dev.mail.EmailBackend"
    DEFAULT_FROM_EMAIL = "CodexFlow <codexflow@localhost>"

# allauth's rate limits count attempts here, for all processes together.
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "codexflow.lib.cache_backend.RedisCache",
        "LOCATION": [database_url(ENV.redis_shared_url, 2)],
        "KEY_PREFIX": f"{ENV.redis_prefix}:cache",
        "OPTIONS": {
            "pool_class": "codexflow.lib.redis.ConnectionPool",
            "socket_timeout": 2,
            "socket_connect_timeout": 2,
        },
    }
    if ENV.redis_shared_url
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    # Of this process: HTML that stands on every page, named after all that it shows (templates/base_app.html).
    "frames": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "frames",
        "OPTIONS": {"MAX_ENTRIES": 200},
    },
}

# The live tail. Redis channels are shared by all database numbers, so the prefix separates installations.
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [channels_host(ENV.redis_shared_url)], "prefix": f"{ENV.redis_prefix}:live"},
    }
}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("tr", "Türkçe")]
# The second overrides messages of allauth.
# English dates of the operators' tables.
FORMAT_MODULE_PATH = "codexflow.lib.formats"
LOCALE_PATHS = [REPOSITORY / "locale", REPOSITORY / "locale" / "allauth", REPOSITORY / "locale" / "unfold"]
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
STATIC_ROOT = ENV.static_root or REPOSITORY / "staticfiles"
STATICFILES_DIRS = [REPOSITORY / "static"]
# Production serves the files of collectstatic under hashed names. Development needs no such step.
_is_gathered = ENV.is_production or ENV.static_root is not None
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = not _is_gathered
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if _is_gathered
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

_SELF = "'self'"
_NONE = "'none'"
# Form targets (form-action): the sign-in forms redirect to the provider.
_PROVIDER_HOSTS = {"github": "https://github.com", "google": "https://accounts.google.com"}
# A form leads to the hosted checkout as well.
_CHECKOUTS = [ENV.stripe_api_base or "https://checkout.stripe.com"] if "stripe" in ENV.payment_providers else []
if "iyzico" in ENV.payment_providers:
    _sandbox = "sandbox-" if "sandbox" in ENV.iyzico_base_url else ""
    _is_iyzico = not ENV.iyzico_base_url or ENV.iyzico_base_url.endswith(".iyzipay.com")
    _CHECKOUTS.append(f"https://{_sandbox}cpp.iyzipay.com" if _is_iyzico else ENV.iyzico_base_url)
# data: is used by the QR code of authenticator apps and the arrow of selects.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [_SELF],
        "script-src": [_SELF],
        "style-src": [_SELF],
        "font-src": [_SELF],
        "connect-src": [_SELF],
        "form-action": [_SELF, *(_PROVIDER_HOSTS[name] for name in _PROVIDERS), *_CHECKOUTS],
        "img-src": [_SELF, "data:"],
        "object-src": [_NONE],
        "base-uri": [_NONE],
        "frame-ancestors": [_NONE],
    }
}

SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
# Behind TLS, http is redirected and browsers are told to use https only. Probes, /v1, LiteLLM's reports and /metrics do
# not come this far. A request that claims to have come by https gets no redirect, whoever sends it: it would lead to
# itself.
_is_https = ENV.is_production and ENV.site_url.startswith("https://")
SECURE_SSL_REDIRECT = _is_https
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _is_https else None
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if _is_https else 0
SILENCED_SYSTEM_CHECKS = [
    # HSTS is for the host itself: other subdomains are not ours to decide about.
    "security.W005",
    "security.W021",
    # Secrets are checked by codexflow/env.py, which also knows the guides' examples.
    "security.W009",
]
SESSION_COOKIE_HTTPONLY = True
CSRF_TRUSTED_ORIGINS = [ENV.site_url] if ENV.site_url else []
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _is_https

LOGGING = logging_config(ENV.log_level, ENV.sentry_dsn)

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["codexflow.lib.http.BoundedJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "codexflow.lib.http.drf_exception_handler",
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "CodexFlow management API",
    "VERSION": "1",
    "DESCRIPTION": "Keys, requests, usage and exports of an organization. New requests come live over a WebSocket at"
    " `/ws/o/{slug}/logs/` (docs/api.md), which OpenAPI has no words for.",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "codexflow.lib.openapi.add_error_responses",
    ],
}

UNFOLD = {
    "SITE_TITLE": "CodexFlow",
    "SITE_HEADER": "CodexFlow",
    "SITE_SUBHEADER": _("Operations"),
    "SITE_URL": "/",
    "SITE_SYMBOL": "route",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/static/img/favicon.svg"}],
    "STYLES": [lambda _request: static("css/ops.css")],
    "SHOW_BACK_BUTTON": True,
    "BORDER_RADIUS": "8px",
    "COLORS": {
        "primary": {
            "50": "oklch(97% .02 192)", "100": "oklch(94% .04 192)", "200": "oklch(90% .07 192)",
            "300": "oklch(86% .10 190)", "400": "oklch(80% .12 187)", "500": "oklch(62% .10 190)",
            "600": "oklch(47% .088 195)", "700": "oklch(41% .076 196)", "800": "oklch(35% .065 197)",
            "900": "oklch(29% .052 198)", "950": "oklch(22% .04 199)",
        }
    },
}  # fmt: skip
