"""Tax numbers, checked offline by their digits. Pure: nobody is asked whether a number was ever given."""

from typing import Literal

from stdnum.eu import vat
from stdnum.exceptions import ValidationError
from stdnum.tr import tckimlik, vkn

Kind = Literal["eu_vat", "vkn", "tckn", "other"]
EU_VAT, VKN, TCKN, OTHER = "eu_vat", "vkn", "tckn", "other"
MAX_LENGTH = 40
# Prefixes of VAT numbers that are not the country's code of ISO 3166. XI is Northern Ireland.
_PREFIXES = {"GR": "EL", "GB": "XI"}


def normalized(kind: str, number: str, country: str) -> str:
    """Return the number as invoices show it: without spaces and dots, an EU VAT number with its prefix.

    `country` is the code of ISO 3166. Raises ValueError for a number that cannot be one of this kind and country.
    """
    number = " ".join(number.split())
    if kind == OTHER:
        if not number or len(number) > MAX_LENGTH or not number.isprintable():
            raise ValueError("no number")
        return number
    if kind in (VKN, TCKN) and country != "TR":
        raise ValueError("a number of another country")
    try:
        if kind == VKN:
            return str(vkn.validate(number.replace(" ", "")))
        if kind == TCKN:
            return str(tckimlik.validate(number.replace(" ", "")))
        if kind == EU_VAT:
            return _eu_vat(number, country)
    except ValidationError as exc:
        raise ValueError("not a number of this kind") from exc
    raise ValueError(f"{kind!r} is no kind of tax number")


def _eu_vat(number: str, country: str) -> str:
    prefix = _PREFIXES.get(country, country)
    compact = number.replace(" ", "").replace(".", "").replace("-", "").upper()
    if not compact.startswith(prefix):
        compact = prefix + compact
    return str(vat.validate(compact))


_ISO_3166 = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO
FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE
JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO
MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW
PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM
TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_ISO_3166.split())
_EU = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
EU = frozenset(_EU.split())
