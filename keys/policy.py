"""Allow-lists of a key. Empty lists allow everything that the plan allows. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from codexflow.catalogue import surfaces

Network: TypeAlias = IPv4Network | IPv6Network
_MAPPED_BITS = 96

# Surfaces that a key may be restricted to: the gateway's APIs, and changes through the management API.
MANAGEMENT = "management"
SURFACES = (*surfaces.SURFACES, MANAGEMENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """The allow-lists of one key."""

    allowed_stages: frozenset[str] = frozenset()
    allowed_models: frozenset[str] = frozenset()
    allowed_surfaces: frozenset[str] = frozenset()
    allowed_networks: tuple[Network, ...] = ()

    def permits_stage(self, stage: str) -> bool:
        """`stage` is plan, code, review or direct."""
        return not self.allowed_stages or stage in self.allowed_stages

    def permits_model(self, model: str) -> bool:
        return not self.allowed_models or model in self.allowed_models

    def permits_surface(self, surface: str) -> bool:
        return not self.allowed_surfaces or surface in self.allowed_surfaces

    def permits_address(self, address: str | None) -> bool:
        """Return whether a client at `address` may use the key. Text that is not an address is in no network."""
        return not self.allowed_networks or is_inside(address, self.allowed_networks)


def is_inside(address: str | None, networks: Iterable[Network]) -> bool:
    """Return whether `address` lies in one of `networks`. An IPv4 client of a dual-stack socket counts as IPv4."""
    try:
        client = ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(client, "ipv4_mapped", None)
    return any((mapped or client) in network for network in networks)


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse networks in CIDR notation or single addresses. Raises ValueError naming the first that is neither."""
    for text in texts:
        if "%" in text:  # an IPv6 zone: it names an interface of one machine and has no length limit
            raise ValueError(f"{text!r} does not appear to be an IPv4 or IPv6 network")
    return tuple(_without_mapping(ip_network(text.strip())) for text in texts)


def _without_mapping(network: Network) -> Network:
    """Return a network of mapped IPv4 addresses (::ffff:10.0.0.0/104) as IPv4, as its clients are."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def is_within(network: Network, around: Iterable[Network]) -> bool:
    """Return whether all of `network` lies in one of `around`."""
    return any(
        network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type] # of one version
        for other in around
    )
