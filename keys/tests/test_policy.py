"""Allow-lists of a key."""

import pytest

from keys.policy import KeyPolicy, parse_networks


def test_an_empty_policy_permits_everything() -> None:
    policy = KeyPolicy()
    assert policy.permits_stage("plan")
    assert policy.permits_model("gpt-6.1-sol")
    assert policy.permits_surface("chat")
    assert policy.permits_address("203.0.113.9")
    assert policy.permits_address(None)


def test_an_allow_list_permits_only_its_names() -> None:
    policy = KeyPolicy(
        allowed_stages=frozenset({"code"}),
        allowed_models=frozenset({"gpt-6.1-sol"}),
        allowed_surfaces=frozenset({"chat"}),
    )
    assert (policy.permits_stage("code"), policy.permits_stage("direct")) == (True, False)
    assert (policy.permits_model("gpt-6.1-sol"), policy.permits_model("gpt-6-luna")) == (True, False)
    assert (policy.permits_surface("chat"), policy.permits_surface("embeddings")) == (True, False)


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("192.0.2.1", True),
        ("2001:db8::7", True),
        ("192.0.2.2", False),
        ("2001:db9::1", False),
        ("::1", False),
        ("10.1.2.3:443", False),
        ("unix", False),
        ("", False),
        (None, False),
    ],
)
def test_an_address_must_be_in_an_allowed_network(address: str | None, permitted: bool) -> None:
    policy = KeyPolicy(allowed_networks=parse_networks(["10.0.0.0/8", "192.0.2.1", " 2001:db8::/32 "]))
    assert policy.permits_address(address) is permitted


@pytest.mark.parametrize("text", ["10.0.0.1/8", "example.org", "", "10.0.0.0/33"])
def test_an_invalid_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_networks([text])


@pytest.mark.parametrize(
    ("network", "address", "permitted"),
    [
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "11.1.2.3", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:0:0/96", "203.0.113.9", True),
        ("::ffff:0:0/96", "2001:db8::1", False),
        ("::/0", "2001:db8::1", True),
    ],
)
def test_a_network_of_mapped_addresses_is_one_of_ipv4(network: str, address: str, permitted: bool) -> None:
    policy = KeyPolicy(allowed_networks=parse_networks([network]))
    assert policy.permits_address(address) is permitted
