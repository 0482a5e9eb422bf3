"""Amounts: exact integer minor units of their currency, or no amount."""

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.events import AMOUNT_LIMIT_MINOR, currency_code
from stream.currencies import EXPONENTS, money_of
from stream.money import BAD_AMOUNT, AmountReader


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        (12.34, "EUR", 1_234),
        (0.1 + 0.2, "EUR", 30),
        (0.29, "EUR", 29),
        (1.005, "EUR", BAD_AMOUNT),
        (1.0000001, "EUR", BAD_AMOUNT),
        (500.0, "JPY", 500),
        (500.5, "JPY", BAD_AMOUNT),
        (1.234, "KWD", 1_234),
        (1.2345, "KWD", BAD_AMOUNT),
        (1.2345, "CLF", 12_345),
        (-3.5, "EUR", -350),
        (87_960_930_222.07, "EUR", AMOUNT_LIMIT_MINOR - 1),
        (87_960_930_222.08, "EUR", BAD_AMOUNT),
        (1e308, "EUR", BAD_AMOUNT),
        ("12.34", "EUR", 1_234),
        ("12.3", "EUR", 1_230),
        ("12", "EUR", 1_200),
        ("12.3400", "EUR", 1_234),
        ("12.345", "EUR", BAD_AMOUNT),
        ("-0.01", "EUR", -1),
        ("87960930222.08", "EUR", BAD_AMOUNT),
        ("500.0", "JPY", 500),
        ("", "EUR", BAD_AMOUNT),
        ("1e2", "EUR", BAD_AMOUNT),
        ("+1", "EUR", BAD_AMOUNT),
        (" 1", "EUR", BAD_AMOUNT),
        ("1_000", "EUR", BAD_AMOUNT),
        (".5", "EUR", BAD_AMOUNT),
        ("5.", "EUR", BAD_AMOUNT),
        ("١", "EUR", BAD_AMOUNT),
        ("1\n", "EUR", BAD_AMOUNT),
        ("9" * 64, "EUR", BAD_AMOUNT),
        (1.0, "XXX", BAD_AMOUNT),
    ],
)
def test_an_amount_is_minor_units_of_its_currency_or_none(amount, currency, minor):
    reader = AmountReader()
    assert reader.one(amount, currency) == minor
    units, codes = reader.column([amount] * 3, [currency] * 3)
    assert units.tolist() == [minor] * 3
    assert codes.tolist() == [currency_code(currency) if currency in EXPONENTS else 0] * 3


@given(st.integers(-AMOUNT_LIMIT_MINOR + 1, AMOUNT_LIMIT_MINOR - 1), st.sampled_from(["EUR", "JPY", "KWD", "CLF"]))
def test_every_amount_that_a_double_can_tell_apart_comes_back_exactly(minor, currency):
    amount = Decimal(minor).scaleb(-EXPONENTS[currency])
    reader = AmountReader()
    assert reader.one(float(amount), currency) == minor
    assert reader.one(f"{amount:f}", currency) == minor


RATES = {"USD": Fraction("0.9234"), "JPY": Fraction("0.0061"), "KWD": Fraction("3.0101")}


@given(st.integers(-(10**9), 10**9), st.sampled_from(["USD", "JPY", "KWD", "EUR"]))
def test_conversion_is_exact_and_a_half_goes_to_the_even_cent(minor, currency):
    amount = Decimal(minor).scaleb(-EXPONENTS[currency])
    rate = RATES.get(currency, Fraction(1))
    in_euros = amount * Decimal(rate.numerator) / Decimal(rate.denominator)
    expected = int(in_euros.scaleb(2).to_integral_value(ROUND_HALF_EVEN))
    assert AmountReader("EUR", RATES).one(f"{amount:f}", currency) == expected


def test_with_a_base_currency_every_event_carries_it_and_one_without_a_rate_is_unknown():
    reader = AmountReader("EUR", RATES)
    units, codes = reader.column([1.0, 1.0, 1.0], ["USD", "EUR", "GBP"])
    assert units.tolist() == [92, 100, BAD_AMOUNT]
    assert codes.tolist() == [currency_code("EUR"), currency_code("EUR"), 0]
    assert reader.currencies == {"EUR", "USD", "JPY", "KWD"}


AMOUNTS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**6), 10**6).map(lambda cents: cents / 100),
    st.decimals(-(10**6), 10**6, places=3).map(str),
    st.text(max_size=6),
)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(AMOUNTS, st.sampled_from(["EUR", "JPY", "KWD", "USD", "XXX", ""])), max_size=12),
    st.booleans(),
)
def test_a_column_reads_like_its_amounts_one_by_one(pairs, converted):
    reader = AmountReader("EUR", RATES) if converted else AmountReader()
    for rows in (pairs, [pair for pair in pairs if isinstance(pair[0], float)]):
        amounts, currencies = [amount for amount, _ in rows], [currency for _, currency in rows]
        units, _ = reader.column(amounts, currencies)
        assert units.tolist() == [reader.one(amount, currency) for amount, currency in rows]


def test_currencies_have_the_decimals_that_iso_4217_gives_them():
    assert {EXPONENTS[currency] for currency in ("JPY", "KRW", "ISK", "XOF")} == {0}
    assert {EXPONENTS[currency] for currency in ("EUR", "USD", "GBP", "CHF", "INR")} == {2}
    assert {EXPONENTS[currency] for currency in ("KWD", "BHD", "TND", "OMR")} == {3}
    assert all(len(currency) == 3 and currency.isalpha() and currency.isupper() for currency in EXPONENTS)
    assert len({currency_code(currency) for currency in EXPONENTS}) == len(EXPONENTS) >= 170


@pytest.mark.parametrize(
    ("currency", "minor", "said"),
    [("EUR", 123_456, "1,234.56 EUR"), ("JPY", 500, "500 JPY"), ("KWD", -1_234.4, "-1.234 KWD")],
)
def test_an_amount_is_said_in_major_units_with_its_currencys_decimals(currency, minor, said):
    assert money_of(currency_code(currency))(minor) == said


def test_an_amount_of_no_known_currency_is_said_in_minor_units():
    assert money_of(0)(1234.0) == "1,234 in minor units"
