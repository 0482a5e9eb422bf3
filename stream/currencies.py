"""Currencies and how many decimals each has (ISO 4217), which is what turns an amount into integer minor units."""

from collections.abc import Callable
from functools import cache
from typing import Final

from models.sentences import in_major_units, in_minor_units
from state.events import currency_code

__all__ = ["EXPONENTS", "money_of"]

_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"
_TWO = """
AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW
CNY COP COU CRC CUC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HRK HTG HUF
IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV
MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD
SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG ZWL
"""

#: Decimals of each currency's minor unit. Withdrawn ones that history still holds (HRK, SLL, ZWL, CUC) are kept.
EXPONENTS: Final[dict[str, int]] = {
    currency: exponent
    for exponent, names in ((0, _NONE), (2, _TWO), (3, _THREE), (4, _FOUR))
    for currency in names.split()
}


@cache
def money_of(code: int) -> Callable[[float], str]:
    """Return what says an amount of minor units for people, in major units of the currency with this code.

    Code 0, or any other that is no currency's: in minor units, since nobody knows how many make a major one.
    """
    for currency, decimals in EXPONENTS.items():
        if currency_code(currency) == code:
            return lambda minor: in_major_units(minor, decimals, currency)
    return in_minor_units
