"""Feature sets: what they mean, what is refused, and that their hashes never change unawares."""

import pytest

from state.errors import FeatureSetError
from state.features import (
    DAY_MS,
    MONEY_AGGREGATES,
    StateSpec,
    default_feature_set,
    parse_duration_ms,
    parse_feature_set,
)

ONE = '[[feature]]\nname = "n"\naggregate = "count"\nwindow = "1h"\ntext = "{value:.0f} payments"\n'


def parse(text, name='name = "mine"\n'):
    return parse_feature_set((name + text).encode())


def test_the_default_set_has_24_features_and_a_hash_that_only_a_deliberate_change_moves():
    features = default_feature_set()
    assert len(features.features) == 24
    assert features.hash == "1dd9aabfdaf12e52"
    StateSpec().check(features)


def test_the_default_set_covers_five_windows_and_the_handbooks_counts_and_means():
    features = default_feature_set()
    windows = {feature.window_ms for feature in features.features} - {0}
    assert windows == {5 * 60_000, 3_600_000, DAY_MS, 7 * DAY_MS, 30 * DAY_MS}
    assert {"count_24h", "count_7d", "count_30d"} <= set(features.names)
    assert {"mean_amount_24h", "mean_amount_7d", "mean_amount_30d"} <= set(features.names)


def test_the_state_hash_is_pinned_and_covers_all_four_parts():
    spec = StateSpec()
    assert spec.hash == "5c1ccf9d7e725b52"
    others = [
        StateSpec(fields=("country", "merchant_id", "device_id")),
        StateSpec(retention_ms=spec.retention_ms + 1),
        StateSpec(max_events=4095),
        StateSpec(decoding="2"),
    ]
    assert len({spec.hash, *(other.hash for other in others)}) == 5


def test_the_hash_covers_the_ordered_declaration_and_neither_texts_nor_comments_nor_the_sets_name():
    second = ONE.replace('"n"', '"m"').replace("count", "sum")
    features = parse(ONE + second)
    assert parse("# a comment\n" + ONE.replace("payments", "cards") + second, 'name="other"\n').hash == features.hash
    assert parse(second + ONE).hash != features.hash
    assert parse(ONE.replace("1h", "2h") + second).hash != features.hash
    assert parse(ONE.replace('"n"', '"k"') + second).hash != features.hash
    assert parse(ONE.replace("1h", "60m") + second).hash == features.hash


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1s", 1_000), ("5m", 300_000), ("24h", DAY_MS), ("30d", 30 * DAY_MS)],
)
def test_durations_are_a_number_and_a_unit(text, expected):
    assert parse_duration_ms(text) == expected


@pytest.mark.parametrize("text", ["", "5", "m", "0m", "-5m", "1.5h", "5 m", "1w", "1h30m", "٣h", "5m\n"])
def test_other_durations_are_refused(text):
    with pytest.raises(ValueError, match=r"^"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "declares no features"),
        ("feature = 3", "declares no features"),
        ("[[feature]]", "Feature number 1 has no name"),
        ('[[feature]]\nname = ""', "Feature number 1 has a name that is no text"),
        ('[[feature]]\nname = "n"', "Feature n has no aggregate"),
        (ONE.replace("count", "cuont"), "unknown aggregate 'cuont' (did you mean count?)"),
        (ONE.replace("window", "windw"), "unknown key 'windw' (did you mean window?)"),
        ("features = 1\n" + ONE, "The feature set has the unknown key 'features' (did you mean feature?)"),
        (ONE.replace('window = "1h"\n', ""), 'Feature n has no window: add the line window = "…".'),
        (ONE.replace('"1h"', '"1 hour"'), "has the window '1 hour': write it like 30s, 5m, 1h or 7d."),
        (ONE.replace('"1h"', "3600"), "Feature n has a window that is no text: put it in quotes."),
        (ONE.replace('"1h"', '"9999d"'), "the longest is 3650d"),
        (ONE.replace("count", "value"), "value reads this payment alone: remove the window"),
        (ONE.replace("count", "distinct"), "Feature n has no field"),
        (ONE + 'field = "country"\n', "count reads no field: remove the line field"),
        (ONE.replace("count", "sum") + 'field = "country"\n', "sum reads the amount"),
        (ONE.replace("{value:.0f}", "{valu}"), "names more than {value}"),
        (ONE.replace("{value:.0f}", "{value:q}"), "names more than {value}"),
        (ONE.replace("{value:.0f}", "{"), "names more than {value}"),
        (ONE + ONE, "Two features are named n"),
        ("x = ", "no valid TOML"),
    ],
)
def test_a_mistake_in_a_feature_set_gets_one_sentence(text, message):
    with pytest.raises(FeatureSetError) as error:
        parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_set_that_is_no_utf8_or_has_no_name_is_refused():
    with pytest.raises(FeatureSetError, match="save it as UTF-8"):
        parse_feature_set(b"\xff")
    with pytest.raises(FeatureSetError, match="The feature set has no name"):
        parse(ONE, "")


def test_the_state_refuses_a_set_that_reads_what_it_does_not_keep():
    merchants = parse(ONE.replace("count", "distinct") + 'field = "merchant"\n')
    with pytest.raises(FeatureSetError, match=r"did you mean merchant_id\?.*warm the new state"):
        StateSpec().check(merchants)
    with pytest.raises(FeatureSetError, match=r"looks back 40d, but the state keeps 31d"):
        StateSpec().check(parse(ONE.replace("1h", "40d")))
    with pytest.raises(FeatureSetError, match=r"looks back 1h, but the state keeps 90s:"):
        StateSpec(retention_ms=90_000).check(parse(ONE))
    StateSpec(fields=("merchant",)).check(merchants)


@pytest.mark.parametrize(
    "parts",
    [
        {"max_events": 0},
        {"max_events": 32_769, "fields": ("a",)},
        {"max_events": 32_768},  # of three fields: 65,535 values have codes
        {"retention_ms": 0},
        {"fields": ("a", "a")},
    ],
)
def test_a_state_that_a_block_cannot_hold_is_refused(parts):
    with pytest.raises(FeatureSetError):
        StateSpec(**parts)
    StateSpec(max_events=32_768, fields=("a",))


def test_what_is_an_amount_is_said_as_money_and_nothing_else_is():
    for feature in default_feature_set().features:
        assert ("{money}" in feature.text) == (feature.aggregate in MONEY_AGGREGATES)
