"""What a key may do. Empty lists allow everything that the plan allows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from codexflow.catalogue import surfaces

Network: TypeAlias = IPv4Network | IPv6Network

# What a key may be restricted to: the gateway's APIs, and changing things through the management API.
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
        """Whether a client at `address` may use the key. What is no address is inside no network."""
        return not self.allowed_networks or is_inside(address, self.allowed_networks)


def is_inside(address: str | None, networks: Iterable[Network]) -> bool:
    """Whether `address` lies in one of `networks`. An IPv4 client of a dual-stack socket counts as IPv4."""
    try:
        client = ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(client, "ipv4_mapped", None)
    return any((mapped or client) in network for network in networks)


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks in CIDR notation, or single addresses. Raises ValueError naming the first that is neither."""
    for text in texts:
        if "%" in text:  # an interface of one machine, as long as anybody likes
            raise ValueError(f"{text!r} does not appear to be an IPv4 or IPv6 network")
    return tuple(ip_network(text.strip()) for text in texts)


def is_within(network: Network, around: Iterable[Network]) -> bool:
    """Whether all of `network` lies in one of the others."""
    return any(
        network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type] # of one version
        for other in around
    )
