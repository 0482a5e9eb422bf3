"""What proves that a model has not learned from the payments it is judged on: its lineage's days, its holdout's hash.

time ──►
├── learned from ──┤ labels not known ├─ held out ─┤
                   ▲ learned_until_ms              ▲ lineage.data.last_ms
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from models.bundle import Bundle
from models.folds import DAY_MS
from models.holdout import Holdout, payments_sha256
from stream.errors import UsageError

__all__ = ["HELD", "check_not_learned", "learned_from", "learned_until_ms"]

#: The lineage's entry on the bundle's own holdout.
HELD: Final = "holdout"


def learned_until_ms(bundle: Bundle) -> int | None:
    """Return the moment, epoch ms, before which a bundle may have learned from payments; None: it does not say."""
    data = bundle.lineage.get("data")
    last_ms = data.get("last_ms") if isinstance(data, dict) else None
    held, delay = (bundle.parameters.get(name) for name in ("holdout_days", "label_delay_days"))
    if last_ms is None or held is None or delay is None:
        return None
    return int(last_ms + 1 - round((held + delay) * DAY_MS))


def learned_from(found: Holdout, bundle: Bundle) -> int | None:
    """Return from how many payments of a holdout a bundle has learned, or may have; None: it does not say."""
    until_ms = learned_until_ms(bundle)
    return None if until_ms is None else int((found.times_ms < until_ms).sum())


def check_not_learned(path: Path, found: Holdout, bundle: Bundle) -> None:
    """Raise UsageError where a bundle has learned, or may have, from payments of a holdout."""
    until_ms = learned_until_ms(bundle)
    if until_ms is None:
        raise UsageError(
            f"Version {bundle.version} does not say which days it learned from, so no holdout proves anything: train "
            f"it with fraudstream train."
        )
    first_ms = int(found.times_ms.min()) if len(found.times_ms) else until_ms
    if first_ms < until_ms:
        raise UsageError(
            f"The holdout {path} begins on {_day(first_ms)}, but version {bundle.version} learned from payments until "
            f"{_day(until_ms - 1)}: give the file that was written beside the bundle, or one of later days."
        )
    own = bundle.lineage.get(HELD)
    if own and first_ms <= bundle.lineage["data"]["last_ms"] and own["payments_sha256"] != payments_sha256(found):
        raise UsageError(
            f"The holdout {path} lies within the history of version {bundle.version}, but holds other payments than "
            f"were held out: give the file that was written beside the bundle, or one of later days."
        )


def _day(moment_ms: int) -> str:
    return f"{datetime.fromtimestamp(moment_ms / 1000, UTC):%Y-%m-%d %H:%M}Z"
