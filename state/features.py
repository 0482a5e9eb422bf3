"""Feature sets: features are declared in TOML, not coded.

    name = "mine"

    [[feature]]
    name = "count_1h"                                 # any name; it names the column
    aggregate = "count"                               # one of the table below
    window = "1h"                                     # 30s, 5m, 1h, 7d
    text = "{value:.0f} payments in the last hour"    # how a reason says it

Every aggregate looks at the user's payments with event time in (t - window, t], the payment at t itself included.
Amounts are in minor units (cents); a text says one in the payment's own currency with {money}, as in "{money} spent in
the last hour". NaN stands for "there is nothing to say".

| aggregate          | field      | value                                                                            |
|--------------------|------------|----------------------------------------------------------------------------------|
| value              | -          | this payment's amount; no window                                                 |
| count              | -          | number of payments                                                               |
| sum                | -          | sum of the amounts                                                               |
| mean               | -          | mean of the amounts                                                              |
| std                | -          | their population standard deviation; 0 for a single payment                      |
| min, max           | -          | smallest, largest amount                                                         |
| ratio              | -          | this payment's amount over the window's mean; NaN when the amounts sum to 0      |
| distinct           | kept field | number of different values; payments without the field do not count              |
| first_seen         | kept field | 1 when no other payment in the window has this payment's value, else 0; NaN when |
|                    |            | this payment lacks the field                                                     |
| seconds_since_last | -          | seconds since the newest other payment in the window; NaN when there is none     |

A window is empty only for a duplicate whose time conflicts with the stored payment's; count, sum and distinct are then
0, the others NaN. Optional texts: `text_nan` says it when the value is NaN, `text_zero` when it is 0.
"""

import difflib
import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

from state.errors import FeatureSetError

AMOUNT_AGGREGATES = ("value", "sum", "mean", "std", "min", "max", "ratio")
FIELD_AGGREGATES = ("distinct", "first_seen")
PLAIN_AGGREGATES = ("count", "seconds_since_last")
AGGREGATES = AMOUNT_AGGREGATES + FIELD_AGGREGATES + PLAIN_AGGREGATES
MONEY_AGGREGATES = tuple(name for name in AMOUNT_AGGREGATES if name != "ratio")  # their values are amounts
MEANING_VERSION = "1"  # raised when an aggregate's meaning changes, so that no model meets the new meaning unawares

UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DAY_MS = UNIT_MS["d"]
LONGEST_WINDOW_MS = 3_650 * DAY_MS
FEATURE_KEYS = ("name", "aggregate", "field", "window", "text", "text_nan", "text_zero")
SET_KEYS = ("name", "feature")

EVENTS_LIMIT = 32_768  # sequence numbers in a user's block have 16 bits
VALUES_LIMIT = 65_535  # so have the codes of field values


@dataclass(frozen=True)
class Feature:
    """One declared feature: one float32 column."""

    name: str
    aggregate: str
    field: str  # "amount", a kept field, or "" where the aggregate needs none
    window_ms: int  # 0: none
    text: str
    text_nan: str = ""
    text_zero: str = ""


@dataclass(frozen=True)
class FeatureSet:
    """An ordered declaration of features; `source` is the TOML it was read from."""

    name: str
    features: tuple[Feature, ...]
    source: bytes

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def hash(self) -> str:
        """16 hex digits over what the columns mean, in order; texts, comments and the set's own name do not enter."""
        meaning = [[f.name, f.aggregate, f.field, f.window_ms] for f in self.features]
        return _digest(["features", MEANING_VERSION, meaning])


@dataclass(frozen=True)
class StateSpec:
    """What the durable state keeps of each user; a change of any part makes it another state.

    `decoding` is opaque here: it describes how messages become events (mapping and version).
    """

    fields: tuple[str, ...] = ("merchant_id", "country", "device_id")
    retention_ms: int = 31 * DAY_MS  # the longest window, 30 days, and a day of lateness
    max_events: int = 4096
    decoding: str = "1"

    def __post_init__(self) -> None:
        """Refuse what a user's block cannot hold."""
        limit = min(EVENTS_LIMIT, VALUES_LIMIT // max(1, len(self.fields)))
        if not 1 <= self.max_events <= limit:
            raise FeatureSetError(
                f"max_events is {self.max_events}; with {len(self.fields)} kept fields choose 1 to {limit}."
            )
        if not 1 <= self.retention_ms <= 2 * LONGEST_WINDOW_MS:
            raise FeatureSetError(
                f"The retention is {self.retention_ms} ms; choose 1 ms to {2 * LONGEST_WINDOW_MS} ms (20 years)."
            )
        if len(set(self.fields)) != len(self.fields):
            raise FeatureSetError(f"A kept field is named twice in {', '.join(self.fields)}; name each once.")

    @cached_property
    def hash(self) -> str:
        """16 hex digits over all four parts."""
        return _digest(["state", list(self.fields), self.retention_ms, self.max_events, self.decoding])

    def check(self, feature_set: FeatureSet) -> None:
        """Raise FeatureSetError unless this state keeps all that the feature set reads."""
        for feature in feature_set.features:
            if feature.aggregate in FIELD_AGGREGATES and feature.field not in self.fields:
                raise FeatureSetError(
                    f"Feature {feature.name} reads the field {feature.field!r}, but the state keeps "
                    f"{', '.join(self.fields) or 'no fields'}{_nearest(feature.field, self.fields)}: "
                    f"correct the name, or add it to the kept fields and warm the new state from the log."
                )
            if feature.window_ms > self.retention_ms:
                raise FeatureSetError(
                    f"Feature {feature.name} looks back {_duration(feature.window_ms)}, but the state keeps "
                    f"{_duration(self.retention_ms)}: shorten the window, or raise the retention and warm the "
                    f"new state from the log."
                )


def default_feature_set() -> FeatureSet:
    """Return the feature set that ships with fraudstream: 24 features over 5 minutes to 30 days."""
    return parse_feature_set(resources.files("state").joinpath("default_features.toml").read_bytes())


def parse_feature_set(source: bytes) -> FeatureSet:
    """Read a feature set from TOML; raise FeatureSetError with one sentence on what to change."""
    try:
        table = tomllib.loads(source.decode())
    except UnicodeDecodeError:
        raise FeatureSetError("The feature set is no UTF-8 text: save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise FeatureSetError(f"The feature set is no valid TOML: {error}.") from None
    _known_keys(table, SET_KEYS, "The feature set")
    entries = table.get("feature")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise FeatureSetError("The feature set declares no features: add at least one [[feature]] table.")
    features = tuple(_parse_feature(entry, place) for place, entry in enumerate(entries, 1))
    seen: set[str] = set()
    for feature in features:
        if feature.name in seen:
            raise FeatureSetError(f"Two features are named {feature.name}: give each its own name.")
        seen.add(feature.name)
    return FeatureSet(_text(table, "name", "The feature set"), features, source)


def parse_duration_ms(text: str) -> int:
    """Return the milliseconds of a duration such as 30s, 5m, 1h or 7d; raise ValueError for anything else."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})([smhd])", text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * UNIT_MS[match[2]]


def _parse_feature(entry: dict[str, Any], place: int) -> Feature:
    name = _text(entry, "name", f"Feature number {place}")
    where = f"Feature {name}"
    _known_keys(entry, FEATURE_KEYS, where)
    aggregate = _text(entry, "aggregate", where)
    if aggregate not in AGGREGATES:
        raise FeatureSetError(
            f"{where} has the unknown aggregate {aggregate!r}{_nearest(aggregate, AGGREGATES)}: "
            f"choose one of {', '.join(AGGREGATES)}."
        )
    return Feature(
        name,
        aggregate,
        _parse_field(entry, aggregate, where),
        _parse_window(entry, aggregate, where),
        _sentence(entry, "text", aggregate, where),
        _sentence(entry, "text_nan", aggregate, where) if "text_nan" in entry else "",
        _sentence(entry, "text_zero", aggregate, where) if "text_zero" in entry else "",
    )


def _parse_field(entry: dict[str, Any], aggregate: str, where: str) -> str:
    if aggregate in FIELD_AGGREGATES:
        return _text(entry, "field", where)
    fixed = "amount" if aggregate in AMOUNT_AGGREGATES else ""
    if entry.get("field", fixed) != fixed:
        wants = "the amount" if fixed else "no field"
        raise FeatureSetError(f"{where} has a field, but {aggregate} reads {wants}: remove the line field = ….")
    return fixed


def _parse_window(entry: dict[str, Any], aggregate: str, where: str) -> int:
    if aggregate == "value":
        if "window" in entry:
            raise FeatureSetError(f"{where} has a window, but value reads this payment alone: remove the window.")
        return 0
    text = _text(entry, "window", where)
    try:
        window_ms = parse_duration_ms(text)
    except ValueError:
        raise FeatureSetError(f"{where} has the window {text!r}: write it like 30s, 5m, 1h or 7d.") from None
    if window_ms > LONGEST_WINDOW_MS:
        raise FeatureSetError(f"{where} has the window {text!r}: the longest is {_duration(LONGEST_WINDOW_MS)}.")
    return window_ms


def _sentence(entry: dict[str, Any], key: str, aggregate: str, where: str) -> str:
    text = _text(entry, key, where)
    if "{money}" in text and aggregate not in MONEY_AGGREGATES:
        raise FeatureSetError(f"{where} has a {key} with {{money}}, but {aggregate} is no amount: write {{value}}.")
    try:
        text.format(value=1.0, money="1.00 EUR")
    except (LookupError, ValueError, AttributeError, TypeError):
        raise FeatureSetError(f"{where} has a {key} that names more than {{value}} or {{money}}: {text!r}.") from None
    return text


def _text(table: dict[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if value is None:
        raise FeatureSetError(f'{where} has no {key}: add the line {key} = "…".')
    if not isinstance(value, str) or not value:
        raise FeatureSetError(f"{where} has a {key} that is no text: put it in quotes.")
    return value


def _known_keys(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise FeatureSetError(f"{where} has the unknown key {key!r}{_nearest(key, known)}: remove or correct it.")


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _duration(span_ms: int) -> str:
    """Write it as a feature set does, in the largest unit that leaves no fraction."""
    for unit, unit_ms in reversed(UNIT_MS.items()):
        if span_ms % unit_ms == 0:
            return f"{span_ms // unit_ms}{unit}"
    return f"{span_ms}ms"


def _digest(meaning: list[Any]) -> str:
    text = json.dumps(meaning, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
