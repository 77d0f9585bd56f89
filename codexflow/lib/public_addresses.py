"""Addresses on the public internet, told apart from those of this network, this machine and its cloud. Pure."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

# What `is_global` of the standard library lets pass, though it leads inward or to an embedded IPv4 address.
_REFUSED_V4 = tuple(ip_network(each) for each in ("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4"))
# Only this part of IPv6 is handed out to networks; what follows is inside of it and leads elsewhere.
_ASSIGNED = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(IPv6Network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))


def is_public(text: str) -> bool:
    """Return whether an address belongs to the public internet. Text that is no address does not.

    IPv6 addresses that carry an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo) are refused altogether: which
    one is reached depends on the network.
    """
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return False
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_loopback:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in each for each in _REFUSED_V4)
    return address in _ASSIGNED and address.scope_id is None and not any(address in each for each in _REFUSED_V6)


def is_loopback(text: str) -> bool:
    """Return whether an address is this machine's own, in plain form."""
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False
