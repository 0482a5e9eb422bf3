"""A reason's sentence holds the value and nothing that could do harm."""

import pytest

from models.errors import BundleError
from models.sentences import MAX_LENGTH, Sentence, check_sentence, in_major_units


@pytest.mark.parametrize(
    "text",
    [
        "{value}",
        "{value:.0f} payments",
        "spent {value:,.2f}",
        "{value:.1%} of {{all}}",
        "first seen here",
        "{value:g}",
        "{money}",
    ],
)
def test_a_sentence_may_hold_the_value(text):
    sentence = Sentence(text)
    check_sentence("f", sentence)
    for value in (0.0, -1.5, 1e30, float("inf"), float("nan")):
        assert 0 < len(sentence.fill("f", value)) < 2 * MAX_LENGTH


@pytest.mark.parametrize(
    "text",
    [
        "{value.__class__}",
        "{value[0]}",
        "{value!r}",
        "{other}",
        "{0}",
        "{}",
        "{value:999999999}",
        "{value:{value}}",
        "{value:d}",
        "{value",
        "{value} {value}",
        "{money} of {value}",
        "{money:.2f}",
        "{money!r}",
        "two\nlines",
        "x" * (MAX_LENGTH + 1),
    ],
)
@pytest.mark.parametrize("which", ["text", "text_zero", "text_nan"])
def test_a_sentence_may_hold_nothing_else(text, which):
    with pytest.raises(BundleError, match="sentence of feature 'f'"):
        check_sentence("f", Sentence(**{"text": "x", which: text}))


def test_an_unknown_value_cannot_be_said():
    with pytest.raises(BundleError, match="must not hold a value"):
        check_sentence("f", Sentence("x", text_nan="it is {value}"))


def test_zero_and_unknown_have_words_of_their_own():
    sentence = Sentence("first payment here", "paid here before", "no merchant is named")
    said = [sentence.fill("new_merchant", value) for value in (1.0, 0.0, -0.0, float("nan"))]
    assert said == ["first payment here", "paid here before", "paid here before", "no merchant is named"]


def test_without_them_zero_is_a_value_and_unknown_is_said_plainly():
    said = [Sentence("{value:.0f} payments").fill("count_1h", value) for value in (0.0, float("nan"))]
    assert said == ["0 payments", "nothing known yet for count 1h"]


def test_money_is_said_by_whoever_knows_the_currency():
    sentence = Sentence("{money} spent today", "nothing spent today")
    assert sentence.fill("sum", 1234.0, lambda minor: f"{minor / 100:.2f} EUR") == "12.34 EUR spent today"
    assert sentence.fill("sum", 1234.0) == "1,234 in minor units spent today"
    assert sentence.fill("sum", 0.0) == "nothing spent today"


def test_amounts_are_said_in_major_units_with_their_currency_where_it_is_known():
    assert in_major_units(123_456) == "1,234.56"
    assert in_major_units(123_456, 0, "JPY") == "123,456 JPY"
    assert in_major_units(-5, 3, "KWD") == "-0.005 KWD"


@pytest.mark.parametrize(
    "text", ["{value}", "{{a}} {value:,.1f} {{b}} c", "{{value}}", "}}{value:.0%}{{", "x", "{value:g}"]
)
def test_a_sentence_taken_apart_says_what_the_format_says(text):
    for value in (1234.5, -0.25, 1e30, float("inf")):
        assert Sentence(text).fill("f", value) == text.format(value=value)
