"""An explanation as a table for people, and as JSON for programs."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from stream.decision_search import FoundDecision
from stream.explain import Explanation
from stream.times import rfc3339

__all__ = ["as_json", "as_lines"]

HEADER: Final = ("feature", "value", "contribution", "in words")


def as_lines(explanation: Explanation) -> Iterator[str]:
    """Yield the lines of a table: what was decided, each feature's part, and how they add up to the score."""
    decided = explanation.found.decided
    flags = f" [{', '.join(decided.flags)}]" if decided.flags else ""
    yield f"{decided.transaction_id} of {decided.user_id}, paid {rfc3339(decided.event_time)}"
    yield f"{_outcome(explanation.found)}{flags}"
    yield f"engine {decided.engine}, partition {decided.partition}, offset {decided.offset}"
    yield ""
    rows = [
        (one.feature, f"{one.value:.7g}", f"{one.contribution:+.4f}", one.text) for one in explanation.contributions
    ]
    sums = [
        ("sum", "", f"{explanation.total:+.4f}", "of all features"),
        ("bias", "", f"{explanation.bias:+.4f}", "expected before anything is known"),
        ("log-odds", "", f"{explanation.log_odds:+.4f}", "sum and bias"),
        ("score", "", f"{decided.score:.7g}", _thresholds(explanation)),
    ]
    widths = [max(len(row[column]) for row in (HEADER, *rows, *sums)) for column in range(3)]
    yield _line(HEADER, widths)
    yield from (_line(row, widths) for row in rows)
    yield "-" * (sum(widths) + 4)
    yield from (_line(row, widths) for row in sums)
    if explanation.others:
        yield ""
        every = (explanation.found, *explanation.others)
        yield f"Decided more than once; {_which(every)}:"
        yield from (f"  {_place(one)}  {_outcome(one)}" for one in every)


def _which(every: Sequence[FoundDecision]) -> str:
    """Say how one of several decisions is asked for; a repeat stands at the same place as the decision before it."""
    places = {(one.decided.partition, one.decided.offset) for one in every}
    models = {one.decided.model for one in every}
    if len(places) == len(every):
        return "--partition and --offset say which to explain"
    if len(places) > 1:
        return "--partition and --offset, and of one place --model VERSION, say which to explain"
    if len(models) > 1:
        return "from one place, so --model VERSION says which to explain"
    return "from one place by one version, so the first written is explained"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    feature, value, contribution, text = row
    return f"{feature:<{widths[0]}}  {value:>{widths[1]}}  {contribution:>{widths[2]}}  {text}".rstrip()


def _thresholds(explanation: Explanation) -> str:
    return f"1 / (1 + exp(-log-odds)); review from {explanation.review:.6g}, decline from {explanation.decline:.6g}"


def _place(found: FoundDecision) -> str:
    return f"partition {found.decided.partition}, offset {found.decided.offset}"


def _outcome(found: FoundDecision) -> str:
    decided = found.decided
    at = rfc3339(decided.scored_at)
    return f"{decided.decision} with score {decided.score:.7g}, scored {at} by model {decided.model}"


def as_json(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as what JSON can hold; a value that is not finite becomes None."""
    decided = explanation.found.decided
    return {
        "transaction_id": decided.transaction_id,
        "user_id": decided.user_id,
        "decision": decided.decision,
        "score": decided.score,
        "log_odds": explanation.log_odds,
        "bias": explanation.bias,
        "sum": explanation.total,
        "contributions": [
            {
                "feature": one.feature,
                "value": one.value if math.isfinite(one.value) else None,
                "contribution": one.contribution,
                "text": one.text,
            }
            for one in explanation.contributions
        ],
        "model": decided.model,
        "engine": decided.engine,
        "feature_set": decided.feature_set,
        "thresholds": {"review": explanation.review, "decline": explanation.decline},
        "flags": decided.flags,
        "event_time": decided.event_time,
        "scored_at": decided.scored_at,
        "partition": decided.partition,
        "offset": decided.offset,
        "others": [
            {
                "partition": other.decided.partition,
                "offset": other.decided.offset,
                "decision": other.decided.decision,
                "score": other.decided.score,
                "model": other.decided.model,
                "scored_at": other.decided.scored_at,
            }
            for other in explanation.others
        ],
    }
