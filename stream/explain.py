"""Why a transaction has its score: found in the logs, scored and explained once more by the model that decided it.

Step 1  the decision, from the decisions topic: it names the model's version and the engine
Step 2  the features it was made from, from the feature log; the currency of its amounts, from the input topic
Step 3  that version's bundle
Step 4  the score anew, by that engine: it must be the same to the bit, or nothing said here would be about it
Step 5  the exact contributions, which with the bias add up to the score's log-odds
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle, open_bundle
from models.ensemble import load_engine
from models.errors import ModelError
from models.reasons import Explainer
from stream.currencies import money_of
from stream.currency_search import find_currency
from stream.decision_search import FoundDecision, Wanted, find_decisions
from stream.errors import FraudstreamError, UsageError
from stream.feature_search import FeatureRow, find_features
from stream.settings import Settings
from stream.topic_scan import TopicScan, scan_config

__all__ = ["Contribution", "Explanation", "explain", "find_bundle", "search"]

#: How far the contributions and the bias may be from the score's log-odds: an engine sums its trees in float32.
SUMS_TO: Final = 1e-4

Tell = Callable[[str, int, int | None], object]


@dataclass(frozen=True, slots=True)
class Contribution:
    """One feature's part in the log-odds; positive: towards fraud. text: its value in plain words."""

    feature: str
    value: float
    contribution: float
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is known of one decision; contributions by size, the strongest first.

    bias: the log-odds expected before anything is known. log_odds: bias and contributions together.
    """

    found: FoundDecision
    others: tuple[FoundDecision, ...]
    directory: Path
    review: float
    decline: float
    bias: float
    contributions: tuple[Contribution, ...]

    @property
    def total(self) -> float:
        """The sum of the contributions."""
        return math.fsum(one.contribution for one in self.contributions)

    @property
    def log_odds(self) -> float:
        """The score's log-odds."""
        return self.bias + self.total


def search(
    settings: Settings, wanted: Wanted, tell: Tell = lambda _, __, ___: None, *, version: str | None = None
) -> tuple[list[FoundDecision], FeatureRow, int]:
    """Steps 1 and 2: return the decisions wanted, the one to be explained first, its features and currency code.

    version: the model whose decision comes first where it made one of several. tell: told what is being read, how many
    records of it were, and of at most how many. Raises FraudstreamError.
    """
    topics = settings.topics
    with TopicScan(scan_config(settings)) as scan:
        every = find_decisions(
            scan, topics.decisions, wanted, lambda done, total: tell("reading decisions", done, total)
        )
        if not every:
            raise FraudstreamError(_not_found(settings, wanted))
        every.sort(key=lambda one: version is not None and one.decided.model != version)
        decided = every[0].decided
        if decided.engine == "constant":
            raise FraudstreamError(
                f"{_name(decided)} was given a constant score by model.engine = constant: there is nothing to explain."
            )
        row = find_features(
            scan,
            topics.features,
            every[0],
            timeout_ms=settings.kafka.transaction_timeout_ms,
            tell=lambda done, total: tell("reading the feature log", done, total),
        )
        currency = find_currency(scan, settings, decided) if row is not None else 0
    if row is None:
        raise FraudstreamError(
            f"The features of {_name(decided)} are not in the topic {topics.features}: its retention may have ended "
            f"(see `fraudstream topics show`), or topics.features named another topic then."
        )
    return every, row, currency


def _not_found(settings: Settings, wanted: Wanted) -> str:
    what = f"the transaction {wanted.transaction_id}" if wanted.transaction_id is not None else "this place"
    where = f" on partition {wanted.partition}" if wanted.partition is not None else ""
    which = f" at offset {wanted.offset}" if wanted.offset is not None else ""
    narrow = "" if wanted.user_id is None and wanted.since_ms is None else " within what --user and --since leave"
    return (
        f"No decision on {what}{where}{which} is in the topic {settings.topics.decisions}{narrow}: correct what you "
        f"gave, or the topic's retention has ended (see `fraudstream topics show`)."
    )


def find_bundle(version: str, given: Bundle | None, candidates: Iterable[Path]) -> Bundle:
    """Step 3: return the bundle of this version: the one given, where one is, else the first sound candidate.

    Raises UsageError where it is not at hand or another version's, ModelError where none of it can be trusted.
    """
    if given is not None:
        if given.version != version:
            raise UsageError(
                f"The decision was made by model {version}, but {given.directory} holds {given.version}: give the "
                f"directory of that version to --model."
            )
        return given
    places, damaged = list(candidates), None
    for place in filter(Path.is_dir, places):
        try:
            bundle = open_bundle(place)
        except ModelError as error:
            damaged = damaged or error
            continue
        if bundle.version == version:
            return bundle
    if damaged:
        raise damaged
    raise UsageError(
        f"The decision was made by model {version}, which is not at hand: put its bundle at {places[0]}, or give its "
        f"directory to --model."
    )


def explain(every: Sequence[FoundDecision], row: FeatureRow, bundle: Bundle, currency: int = 0) -> Explanation:
    """Steps 4 and 5: explain the first decision, its amounts in the currency of this code.

    Raises FraudstreamError where the score cannot be had again.
    """
    found = every[0]
    decided = found.decided
    if row.names != bundle.feature_names or row.feature_set != bundle.feature_set_hash:
        raise FraudstreamError(
            f"The bundle {bundle.directory} takes feature set {bundle.feature_set_hash}, but {_name(decided)} was "
            f"scored on {row.feature_set}: it is another model under the same version."
        )
    x = row.values.reshape(1, -1)
    again = load_engine(bundle, decided.engine).score(x)[0]
    if again.tobytes() != np.float32(decided.score).tobytes():
        raise FraudstreamError(
            f"The score of {_name(decided)} is {decided.score!r}, but model {bundle.version} in {bundle.directory} "
            f"with engine {decided.engine} gives {float(again)!r} now: this is not the model, or not the machine, "
            f"that decided."
        )
    explanation = Explanation(
        found,
        tuple(every[1:]),
        bundle.directory,
        bundle.thresholds.review,
        bundle.thresholds.decline,
        *_parts(bundle, x, currency),
    )
    _check_sum(explanation)
    return explanation


def _parts(bundle: Bundle, x: npt.NDArray[np.float32], currency: int) -> tuple[float, tuple[Contribution, ...]]:
    """Return the bias and the contributions of one row, the strongest first and as declared among equals."""
    parts, bias = Explainer(bundle).explain(x)
    money = money_of(currency)
    contributions = [
        Contribution(name, value, part, bundle.sentences[name].fill(name, value, money))
        for name, value, part in zip(bundle.feature_names, x[0].tolist(), parts[0].tolist(), strict=True)
    ]
    return float(bias[0]), tuple(sorted(contributions, key=lambda one: -abs(one.contribution)))


def _check_sum(explanation: Explanation) -> None:
    """Raise FraudstreamError unless what is said adds up to the score itself, whatever engine gave it."""
    score = float(np.float32(explanation.found.decided.score))
    # Near 0 and 1 many log-odds share one float32: compare where the score has its digits.
    slope = max(score * (1.0 - score), 2.0**-24)
    if abs(_sigmoid(explanation.log_odds) - score) > SUMS_TO * slope + 2.0**-23 * score:
        raise FraudstreamError(
            f"The contributions add up to a score of {_sigmoid(explanation.log_odds):.9g}, not {score:.9g}: this is a "
            f"fault of fraudstream; please report it."
        )


def _sigmoid(log_odds: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * log_odds)) if log_odds > -20.0 else math.exp(log_odds)


def _name(decided: Any) -> str:
    return f"the decision on {decided.transaction_id} (partition {decided.partition}, offset {decided.offset})"
