"""Minor units of currencies, in which card payments are made: cents, or whole yen. Pure.

Amounts of ours are nanos of the currency's unit.
"""

from codexflow.lib.money import NANOS_PER_USD, InvalidAmount

NANOS_PER_UNIT = NANOS_PER_USD
_DECIMALS = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"), 0
    ),
    **dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 3),
}
# Card payments move these amounts of minor units only: dinars in tens of fils, and krónur and shillings, which have
# lost their cents but are written with them, in whole units.
_STEPS = {**dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 10), "ISK": 100, "UGX": 100}


def decimals_of(currency: str) -> int:
    """Return how many decimals card payments in a currency have."""
    return _DECIMALS.get(currency.upper(), 2)


def minor_units(amount_nanos: int, currency: str) -> int:
    """Convert an amount to minor units. Raises InvalidAmount for one that cannot be paid exactly; never rounds."""
    units, rest = divmod(amount_nanos, _nanos_per_minor_unit(currency))
    if rest or units % _STEPS.get(currency.upper(), 1):
        raise InvalidAmount(f"{amount_nanos} nano-{currency} cannot be paid by card")
    return units


def nanos_of(units: int, currency: str) -> int:
    """Convert minor units to nanos."""
    return units * _nanos_per_minor_unit(currency)


def _nanos_per_minor_unit(currency: str) -> int:
    return NANOS_PER_UNIT // int(10 ** decimals_of(currency))
