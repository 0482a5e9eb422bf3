"""When the truth about simulated payments becomes known: labels as a file that `fraudstream label --file` takes.

    payment ──┬── hours ──▶ an analyst or the cardholder says what it was: half of the frauds, half of the honest
              └── weeks ──▶ a chargeback comes: the other frauds
                            nothing ever comes: the other honest payments

So the labels of the first days have about the right share of frauds, and late ones are frauds alone.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["simulated_labels"]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

#: Share of payments, frauds and honest ones alike, that somebody looks at within hours.
EARLY: Final = 0.5
EARLY_MEDIAN_MS: Final = 4 * HOUR_MS
EARLY_LATEST_MS: Final = 3 * DAY_MS
CHARGEBACK_MEDIAN_MS: Final = 18 * DAY_MS
CHARGEBACK_LATEST_MS: Final = 120 * DAY_MS  # the card schemes' deadline
#: Standard deviation of the delays' logarithm: one in six takes more than twice the median, or less than half.
SPREAD: Final = 0.7

#: Keeps the labels' draws apart from the payments' of the same seed.
STREAM: Final = 0x1ABE1


def simulated_labels(table: Any, seed: int) -> Any:
    """Return a label for each payment of a simulated table that gets one, in order of label_time.

    Columns: transaction_id, user_id (text), is_fraud (bool), label_time (int64, epoch ms).
    """
    rng = np.random.default_rng((seed, STREAM))
    fraud = table.column("is_fraud").to_numpy()
    paid_ms = table.column("event_time").cast(pa.int64()).to_numpy()
    early = rng.random(len(fraud)) < EARLY
    spread = rng.lognormal(0.0, SPREAD, len(fraud))
    soon_ms = np.minimum(EARLY_MEDIAN_MS * spread, EARLY_LATEST_MS)
    late_ms = np.minimum(CHARGEBACK_MEDIAN_MS * spread, CHARGEBACK_LATEST_MS)
    label_ms = paid_ms + np.where(early, soon_ms, late_ms).astype(np.int64)
    known = np.flatnonzero(early | fraud)
    order = pa.array(known[np.argsort(label_ms[known], kind="stable")])
    labels = table.select(["transaction_id", "user_id", "is_fraud"])
    return labels.append_column("label_time", pa.array(label_ms)).take(pc.cast(order, pa.int64()))
