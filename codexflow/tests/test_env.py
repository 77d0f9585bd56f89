"""Settings of the operator and the report of invalid ones."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from codexflow.env import DEPRECATED, DEVELOPMENT_SECRET, IGNORED, REPOSITORY, Env, EnvError
from codexflow.lib.server_urls import password_of, place_of, problem_of
from tests.support.lists import assert_same

GOOD = {
    "CFX_ENV": "production",
    "DATABASE_URL": "postgresql://u:p@db/cfx",
    "REDIS_URL": "redis://r:6379/0",
    "LITELLM_URL": "http://litellm:4000/",
    "LITELLM_API_KEY": "sk-of-the-gateway",
    "AUTH_SECRET": "first-secret-of-the-tests-and-of-nothing-else",
    "HASH_SALT": "second-secret-of-the-tests-and-of-nothing-else",
    "SITE_URL": "https://cfx.example.com",
}


class Recorder(Mapping[str, str]):
    """Environment that records the variables that are read."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values_given, self.asked = values, set[str]()

    @override
    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self.values_given[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self.values_given)

    @override
    def __len__(self) -> int:
        return len(self.values_given)


def problems(**changes: str) -> list[str]:
    with pytest.raises(EnvError) as caught:
        Env.read({**GOOD, **changes})
    return caught.value.problems


def test_a_valid_environment_is_read(tmp_path: Path) -> None:
    env = Env.read({**GOOD, "PORT": "9000", "CFX_LEASE_MS": "5000", "CFX_HOME": str(tmp_path)})
    assert (env.port, env.lease_ms, env.litellm_url, env.is_production) == (9000, 5000, "http://litellm:4000", True)


def test_all_problems_are_reported_at_once() -> None:
    wrong = {"HASH_SALT": "short", "AUTH_SECRET": "", "PORT": "no", "LOG_LEVEL": "loud", "LITELLM_URL": "ftp://x"}
    found = problems(**wrong, CFX_LEASE_MS="1")
    for name in (*wrong, "CFX_LEASE_MS"):
        assert sum(line.startswith(name) for line in found) == 1, name


def test_limiter_processes_default_to_web_processes() -> None:
    assert Env.read(GOOD).limiter_processes == 1
    assert Env.read({**GOOD, "CFX_WEB_PROCESSES": "3"}).limiter_processes == 3
    assert Env.read({**GOOD, "CFX_WEB_PROCESSES": "3", "CFX_LIMITER_PROCESSES": "12"}).limiter_processes == 12
    assert Env.read({**GOOD, "CFX_WEB_PROCESSES": "3", "CFX_LIMITER_PROCESSES": "2"}).limiter_processes == 3


def test_limiter_fail_and_outage_allowance_are_read() -> None:
    assert (Env.read(GOOD).limiter_fail, Env.read(GOOD).outage_allowance_nanos) == ("bounded", 1_000_000_000)
    env = Env.read({**GOOD, "LIMITER_FAIL": "closed", "CFX_OUTAGE_ALLOWANCE_USD": "0.25"})
    assert (env.limiter_fail, env.outage_allowance_nanos) == ("closed", 250_000_000)
    wrong = {"LIMITER_FAIL": "open", "CFX_OUTAGE_ALLOWANCE_USD": "-1", "CFX_LIMITER_PROCESSES": "0"}
    assert {line.split(":")[0] for line in problems(**wrong)} == set(wrong)


def test_known_secrets_are_refused_in_production_and_short_ones_everywhere() -> None:
    assert problems(HASH_SALT=DEVELOPMENT_SECRET)
    assert problems(HASH_SALT="cfx-salt-a7b3c9d2e5f8g1h4j6k0m3n5p8q2r4s6")
    with pytest.raises(EnvError):
        Env.read({"CFX_ENV": "development", "HASH_SALT": "short"})


@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "REDIS_URL", "LITELLM_URL", "LITELLM_API_KEY", "AUTH_SECRET", "HASH_SALT"]
)
def test_production_requires_them(name: str) -> None:
    assert [line for line in problems(**{name: ""}) if line.startswith(name)]


def test_a_database_url_set_by_hand_means_production(tmp_path: Path) -> None:
    environ = {name: value for name, value in GOOD.items() if name != "CFX_ENV"} | {"CFX_HOME": str(tmp_path)}
    assert Env.read(environ).is_production
    assert not Env.read({"CFX_HOME": str(tmp_path)}).is_production


@pytest.mark.parametrize(("old", "new"), DEPRECATED.items())
def test_old_names_work_and_are_reported(old: str, new: str, tmp_path: Path) -> None:
    value = "http://old:1" if new.endswith("URL") else "sk-old"
    environ = {**GOOD, "CFX_HOME": str(tmp_path), old: value}
    environ.pop(new, None)
    env = Env.read(environ)
    assert any(old in notice and new in notice for notice in env.notices)
    assert value in (env.litellm_url, env.litellm_admin_key, env.site_url, env.public_api_url)


def test_secrets_are_not_in_the_repr() -> None:
    shown = repr(Env.read(GOOD))
    assert "secret-of-the-tests" not in shown
    assert "u:p@" not in shown


def test_a_provider_needs_both_its_client_and_its_secret() -> None:
    env = Env.read({**GOOD, "CFX_GITHUB_CLIENT_ID": "id", "CFX_GITHUB_CLIENT_SECRET": "hidden-github-secret"})
    assert env.github is not None
    assert (env.github.client_id, env.github.secret, env.google) == ("id", "hidden-github-secret", None)
    assert "hidden-github-secret" not in repr(env)
    found = problems(CFX_GITHUB_CLIENT_ID="id", CFX_GOOGLE_CLIENT_SECRET="hidden")
    assert [line.partition(" ")[0] for line in found] == ["CFX_GITHUB_CLIENT_SECRET", "CFX_GOOGLE_CLIENT_ID"]
    assert "hidden" not in " ".join(found)


@given(st.dictionaries(st.sampled_from([*GOOD, "PORT", "CFX_LEASE_MS", "EMAIL_URL", "CFX_ENV"]), st.text(max_size=30)))
def test_any_value_is_read_or_refused(changes: dict[str, str]) -> None:
    with contextlib.suppress(EnvError):
        assert Env.read({**GOOD, **changes}).port > 0


def test_exactly_the_variables_that_are_read_are_documented() -> None:
    recorder = Recorder(GOOD)
    Env.read(recorder)
    text = (REPOSITORY / "docs" / "settings.md").read_text()
    documented = set(re.findall(r"`([A-Z][A-Z_]+)`", text)) - {"DEBUG", "INFO", "WARNING", "ERROR"}
    assert_same(documented, recorder.asked | set(IGNORED) | set(DEPRECATED), "docs/settings.md")
    example = (REPOSITORY / ".env.example").read_text()
    for name in recorder.asked - set(DEPRECATED) - set(IGNORED):
        assert re.search(rf"^#? ?{name}=", example, re.MULTILINE), f"{name} is missing in .env.example"


CARD = {
    "CFX_PAYMENT_PROVIDERS": "stripe,manual",
    "CFX_STRIPE_SECRET_KEY": "sk_live_0123456789",
    "CFX_STRIPE_WEBHOOK_SECRET": "whsec_0123456789",
    "SITE_URL": "https://cfx.example.com",
}


def test_stripe_is_refused_without_both_secrets() -> None:
    env = Env.read({**GOOD, **CARD, "CFX_STRIPE_WEBHOOK_SECRET": "whsec_0123456789, whsec_9876543210"})
    assert env.payment_providers == ("stripe", "manual")
    assert env.stripe_webhook_secrets == ("whsec_0123456789", "whsec_9876543210")
    assert (env.stripe_api_base, env.stripe_tax_ids, env.is_demo_checkout) == ("", "optional", False)
    for name in ("CFX_STRIPE_SECRET_KEY", "CFX_STRIPE_WEBHOOK_SECRET"):
        for wrong in ("", " ", "pk_live_0123456789", "sk_live", "whsec_", "whsec_0123456789,sk", "x" * 40):
            assert [each.split()[0] for each in problems(**CARD | {name: wrong})] == [name]
    assert Env.read({**GOOD, "CFX_STRIPE_SECRET_KEY": ""}).stripe_secret_key == ""


def test_iyzico_is_refused_without_both_keys() -> None:
    given = {
        "CFX_PAYMENT_PROVIDERS": "iyzico",
        "CFX_IYZICO_API_KEY": "sandbox-0123456789",
        "CFX_IYZICO_SECRET_KEY": "sandbox-9876543210",
        "SITE_URL": "https://cfx.example.com",
    }
    env = Env.read({**GOOD, **given})
    assert (env.payment_providers, env.iyzico_base_url) == (("iyzico",), "")
    assert "9876543210" not in repr(env)
    assert "0123456789" not in repr(env)
    for name in ("CFX_IYZICO_API_KEY", "CFX_IYZICO_SECRET_KEY"):
        for wrong in ("", "short"):
            assert problems(**given | {name: wrong}) == [f"{name} is required for iyzico"]
    assert problems(**given | {"SITE_URL": ""})[0].startswith("SITE_URL is required for iyzico")
    assert "must begin with https://" in problems(CFX_IYZICO_BASE_URL="http://127.0.0.1:4030")[0]


def test_in_production_customers_must_be_able_to_come_back() -> None:
    assert problems(**CARD | {"SITE_URL": ""})[0].startswith("SITE_URL is required for stripe")


def test_secrets_of_stripe_are_in_no_message_and_no_repr() -> None:
    assert "0123456789" not in repr(Env.read({**GOOD, **CARD}))
    wrong = {"CFX_STRIPE_SECRET_KEY": "pk_live_0123456789", "CFX_STRIPE_WEBHOOK_SECRET": "0123456789"}
    assert "0123456789" not in "".join(problems(**CARD | wrong))


def test_production_asks_stripe_by_https_only() -> None:
    assert "CFX_STRIPE_API_BASE must begin with https://" in problems(CFX_STRIPE_API_BASE="http://127.0.0.1:4020")
    assert problems(CFX_STRIPE_TAX_IDS="maybe") == ["CFX_STRIPE_TAX_IDS: 'maybe' is none of off, optional, required"]


def test_payment_providers_are_those_that_there_are() -> None:
    assert Env.read(GOOD).payment_providers == ("manual",)
    assert Env.read({**GOOD, "CFX_PAYMENT_PROVIDERS": " manual , manual,"}).payment_providers == ("manual",)
    assert Env.read({**GOOD, "CFX_PAYMENT_PROVIDERS": "none"}).payment_providers == ()
    unknown = "CFX_PAYMENT_PROVIDERS: 'cash' is none of manual, stripe, iyzico"
    assert problems(CFX_PAYMENT_PROVIDERS="manual,cash") == [unknown]
    assert "names no provider" in problems(CFX_PAYMENT_PROVIDERS=",")[0]


def test_a_line_of_the_bank_details_begins_where_the_variable_says() -> None:
    env = Env.read({**GOOD, "CFX_BANK_TRANSFER_TEXT": r"Example Bank\nIBAN DE02"})
    assert env.bank_transfer_text == "Example Bank\nIBAN DE02"


SELLER = {
    "CFX_SELLER_NAME": "Örnek Yazılım A.Ş.",
    "CFX_SELLER_ADDRESS": r"Büyükdere Cad. 1\nKat 3",
    "CFX_SELLER_CITY": "İstanbul",
    "CFX_SELLER_COUNTRY": "TR",
    "CFX_SELLER_TAX_ID": "4540536920",
}


def test_a_seller_is_given_whole_or_not_at_all() -> None:
    assert Env.read(GOOD).seller is None
    seller = Env.read({**GOOD, **SELLER, "CFX_TAX_RATE_BP": "2000"}).seller
    assert seller is not None
    assert (seller.address, seller.tax_office) == ("Büyükdere Cad. 1\nKat 3", "")
    assert Env.read({**GOOD, **SELLER, "CFX_TAX_RATE_BP": "2000"}).tax_rate_bp == 2000
    for name in SELLER:
        assert problems(**{**SELLER, name: ""})[0].startswith(f"{name}: missing")
    assert problems(**{**SELLER, "CFX_SELLER_COUNTRY": "Türkiye"})[0].startswith("CFX_SELLER_COUNTRY")
    assert problems(CFX_TAX_RATE_BP="20000")


def test_public_addresses_follow_from_the_host_names() -> None:
    env = Env.read({**GOOD, "SITE_URL": "", "APP_HOST": "App.example.com", "API_HOST": "api.example.com"})
    assert (env.site_url, env.public_api_url) == ("https://app.example.com", "https://api.example.com")
    assert (env.app_host, env.api_host) == ("app.example.com", "api.example.com")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"API_HOST": "https://api.example.com"}, "API_HOST: 'https://api.example.com' is no host name"),
        ({"APP_HOST": "app.example.com:443"}, "APP_HOST: 'app.example.com:443' is no host name"),
        ({"APP_HOST": "other.example.com"}, "APP_HOST is other.example.com, but SITE_URL names another host"),
        (
            {"API_HOST": "api.example.com", "PUBLIC_API_URL": "https://x.example.com"},
            "API_HOST is api.example.com, but",
        ),
        ({"API_HOST": "cfx.example.com", "APP_HOST": "cfx.example.com"}, "API_HOST and APP_HOST are the same"),
        ({"API_HOST": "cfx.example.com"}, "API_HOST is the host of SITE_URL"),
    ],
)
def test_host_names_that_contradict_the_addresses_are_refused(changes: dict[str, str], said: str) -> None:
    assert any(line.startswith(said) for line in problems(**changes)), problems(**changes)


@pytest.mark.parametrize(
    "given",
    [
        "cfx-salt-a7b3c9d2e5f8g1h4j6k0m3n5p8q2r4s6",
        "CFX-AUTH-B2C4D6E8F0G2H4J6K8L0M2N4P6Q8R0S2",
        "sk-litellm-x7y9z2w4v6u8t0s3r5q7p9o1n3m5l7k9",
        DEVELOPMENT_SECRET,
    ],
)
@pytest.mark.parametrize("name", ["AUTH_SECRET", "HASH_SALT"])
def test_a_secret_that_is_printed_somewhere_is_refused_in_any_letters(name: str, given: str) -> None:
    found = problems(**{name: given})
    assert [line.partition(" ")[0] for line in found] == [name]
    assert given not in found[0]


@pytest.mark.parametrize("password", ["admin123456", "ADMIN123456", "Admin123456", "ADMİN123456", "admın123456"])
def test_the_guides_password_is_refused_in_any_letters(password: str) -> None:
    assert problems(CFX_ADMIN_PASSWORD=password)[0].startswith("CFX_ADMIN_PASSWORD is an example")


def test_the_guides_database_password_and_keys_are_refused() -> None:
    url = "postgresql://cfx:Xk9#mP2$vL5nQ8wR@cfx-postgres:5432/cfx_db"
    assert problems(DATABASE_URL=url)[0].startswith("the password in DATABASE_URL is an example")
    assert problems(LITELLM_API_KEY="sk-1234")[0].startswith("LITELLM_API_KEY is an example")
    assert problems(LITELLM_WEBHOOK_KEY="your_secure_webhook_key_here")[0].startswith("LITELLM_WEBHOOK_KEY is an")


def test_secrets_are_not_the_same_and_not_made_of_one_letter() -> None:
    assert problems(AUTH_SECRET="a" * 40)[0].startswith("AUTH_SECRET has fewer than 8 different characters")
    assert problems(HASH_SALT=GOOD["AUTH_SECRET"])[0].startswith("HASH_SALT is the same as AUTH_SECRET")
    assert problems(HASH_SALT_PREVIOUS=GOOD["HASH_SALT"])[0].startswith("HASH_SALT_PREVIOUS is the same")
    same = "https-and-long-enough"
    assert problems(CFX_METRICS_TOKEN=same, LITELLM_WEBHOOK_KEY=same)[0].startswith("LITELLM_WEBHOOK_KEY is the same")
    both = Env.read({**GOOD, "LITELLM_ADMIN_KEY": GOOD["LITELLM_API_KEY"]})
    assert both.litellm_admin_key == both.litellm_api_key


def test_every_webhook_key_is_long_enough() -> None:
    assert problems(LITELLM_WEBHOOK_KEY="a")[0].startswith("LITELLM_WEBHOOK_KEY has 1 characters")
    found = problems(LITELLM_WEBHOOK_KEY="long-enough-for-a-key, short")
    assert found[0].startswith("LITELLM_WEBHOOK_KEY (number 2) has 5 characters")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://litellm:4000/v1", "LITELLM_URL must end before /v1"),
        ("http://litellm:4000/v1/", "LITELLM_URL must end before /v1"),
    ],
)
def test_litellms_address_has_no_path_of_the_api(url: str, said: str) -> None:
    assert problems(LITELLM_URL=url)[0].startswith(said)


@pytest.mark.parametrize(
    "value", ["http://", "https://:8000", "http://[::1", "http://a b", "http://h:99999", "http://h:x"]
)
@pytest.mark.parametrize(
    "name", ["LITELLM_URL", "SITE_URL", "PUBLIC_API_URL", "SENTRY_DSN", "OTEL_EXPORTER_OTLP_ENDPOINT"]
)
def test_an_address_without_a_host_that_can_be_read_is_named(name: str, value: str) -> None:
    (problem,) = problems(**{name: value})
    assert re.fullmatch(f"{name}: (it names no host|its host or port cannot be read)", problem)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", "http://0.0.0.0"),
        ("HOST", "0.0.0.0:8000"),
        ("REDIS_URL", "redis://r:6379/main"),
        ("REDIS_SHARED_URL", "redis://r:6379/-1"),
        ("LITELLM_API_KEY", "sk-of the-gateway"),
        ("LITELLM_API_KEY", "sk-of-the-gateway\u200b"),
        ("LITELLM_ADMIN_KEY", "Schlüssel-of-the-admin"),
    ],
)
def test_what_would_fail_at_the_first_call_is_named_at_the_start(name: str, value: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(name)
    assert name == "HOST" or value not in problem


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost", "codexflow-web"])  # noqa: S104 - only read
def test_a_server_listens_at_an_address_or_a_name(host: str) -> None:
    assert Env.read({**GOOD, "HOST": host}).host == host


def test_any_host_is_no_list_of_hosts() -> None:
    assert problems(ALLOWED_HOSTS="*")[0].startswith("ALLOWED_HOSTS may not be *")


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
@pytest.mark.parametrize("password", ["p@ss", "p@ss#w$rd", "50%off", "a/b", "a?b", "with space", "br[ck]t", "half%4"])
def test_a_password_that_must_be_encoded_is_told_without_a_part_of_it(name: str, password: str) -> None:
    scheme = GOOD[name].partition("://")[0]
    found = problems(**{name: f"{scheme}://user:{password}@host.example/0"})
    assert len(found) == 1
    assert found[0].startswith(f"{name}: the password has characters that must be percent-encoded")
    assert password not in found[0]


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=20))
def test_an_encoded_password_is_read_whatever_it_has(password: str) -> None:
    quoted = quote(password, safe="")
    url = f"postgresql://user:{quoted}@host.example:5432/cfx"
    assert problem_of(url, keeps_hash=True) is None
    assert (password_of(url), place_of(url, port=1)) == (password, "host.example:5432")


def test_several_hosts_of_redis_are_sentinels() -> None:
    good = "redis+sentinel://:a-long-password@a:26379,b:26379/cfx/0"
    assert Env.read({**GOOD, "REDIS_URL": good}).redis_url == good
    assert problems(REDIS_URL=good.replace("redis+sentinel", "redis"))[0].startswith("REDIS_URL: several hosts are")
    assert "REDIS_URL: give every sentinel and the name" in problems(REDIS_URL="redis+sentinel://a:26379")[0]
    assert problems(REDIS_URL="redis+sentinel://a:26379,b:x/cfx")[0].startswith("REDIS_URL: ")
    assert place_of(good, port=1) == "a:26379, b:26379"
    assert password_of(good) == "a-long-password"


def test_a_cluster_needs_a_redis_beside_it_which_is_none() -> None:
    cluster, shared = "redis+cluster://:a-long-password@a:6379,b:6379", "redis://:a-long-password@c:6379/0"
    env = Env.read({**GOOD, "REDIS_URL": cluster, "REDIS_SHARED_URL": shared})
    assert (env.redis_url, env.redis_shared_url) == (cluster, shared)
    assert "a-long-password" not in repr(env)
    plain = Env.read(GOOD)
    assert plain.redis_shared_url == plain.redis_url
    assert problems(REDIS_URL=cluster)[0].startswith("REDIS_SHARED_URL is required while REDIS_URL is a cluster")
    said = problems(REDIS_URL=cluster, REDIS_SHARED_URL=cluster)
    assert len(said) == 1
    assert said[0].startswith("REDIS_SHARED_URL must begin with redis://")
    assert "REDIS_URL: a cluster has no numbered" in problems(REDIS_URL=f"{cluster}/0", REDIS_SHARED_URL=shared)[0]
    assert place_of(cluster, port=1) == "a:6379, b:6379"
