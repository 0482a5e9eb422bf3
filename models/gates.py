"""The gates that a candidate passes before it may score: one table of figures, bounds and verdicts.

| gates on    | module                   | what must hold                                                   |
|-------------|--------------------------|------------------------------------------------------------------|
| quality     | `models.gate_quality`    | ranks no worse than the champion on the same holdout             |
| calibration | `models.gate_quality`    | a score means what it says                                       |
| parity      | `models.gate_parity`     | the libraries' own leaves; engines alike                         |
| cost        | `models.gate_cost`       | a batch's time, the memory taken                                 |
| segments    | `models.gate_segments`   | nobody's honest payments are held much more often than others'   |
| robustness  | `models.gate_robustness` | a missing field or noise on the amount does not blind it         |

Whether the running state keeps what the features read is the stream's to say, which adds that row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.ensemble import load_engine
from models.errors import ModelError, NoCudaError
from models.gate import Bounds, Gate, Scored, Scorer
from models.gate_cost import cost_gates, drawn, measure, unmeasured
from models.gate_parity import GPU, parity_gates
from models.gate_quality import calibration_gates, quality_gates
from models.gate_robustness import Disturbances, robustness_gates
from models.gate_segments import segment_gates
from models.holdout import Holdout


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """The version in office, and the holdout's events as its own features float32[n, k] say them."""

    bundle: Bundle
    features: npt.NDArray[np.float32]


def run_gates(
    candidate: Bundle,
    holdout: Holdout,
    champion: Champion | None,
    bounds: Bounds,
    *,
    disturbances: Disturbances,
    engine: str = "auto",
    tell: Callable[[str], object] = lambda _: None,
) -> list[Gate]:
    """Return every gate's row, failed ones too; nothing is skipped because an earlier one failed.

    `holdout` holds the candidate's features, `disturbances` says what becomes of them, `engine` is what the workers
    will choose. Gates that need both classes are rows without a value where the holdout has one alone.
    Raises ModelError where the candidate cannot be loaded.
    """
    labels = np.asarray(holdout.labels, np.int8)
    x = holdout.features
    if x.ndim != 2 or x.shape[1] != len(candidate.feature_names):
        raise ModelError(
            f"The holdout has {x.shape[-1]} features, but version {candidate.version} takes "
            f"{len(candidate.feature_names)}: give the holdout that was written when it was trained."
        )
    scorer = Scorer(candidate)
    frauds, honest = int((labels == 1).sum()), int((labels == 0).sum())
    gates = [
        Gate(
            name="frauds in the holdout",
            value=float(frauds),
            at_least=bounds.min_frauds,
            note=f"among {len(labels):,} events",
        ),
    ]
    if frauds and honest:
        tell("quality and calibration")
        own = scorer.judge(x)
        rival = Scorer(champion.bundle).judge(champion.features) if champion else None
        gates += _judged(labels, holdout, own, rival, bounds)
        tell("robustness")
        gates += robustness_gates(x, labels, holdout.amount_minor, scorer.log_odds, disturbances, bounds)
    else:
        gates.append(Gate(name="honest events in the holdout", value=float(honest), at_least=1.0))
    tell("parity")
    gates += parity_gates(candidate, x, engine)
    tell("time and memory")
    return gates + _cost_gates(candidate, x, engine, bounds)


def _judged(
    labels: npt.NDArray[np.int8],
    holdout: Holdout,
    own: Scored,
    rival: Scored | None,
    bounds: Bounds,
) -> list[Gate]:
    users = np.unique(np.asarray(holdout.user_ids, dtype=str), return_inverse=True)[1]
    return [
        *quality_gates(labels, users, own, rival, bounds),
        *calibration_gates(labels, own, rival, bounds),
        *segment_gates(holdout, own.held, bounds),
    ]


def _cost_gates(candidate: Bundle, x: npt.NDArray[np.float32], engine: str, bounds: Bounds) -> list[Gate]:
    if engine == GPU:
        try:
            load_engine(candidate, engine)
        except NoCudaError:
            return unmeasured(engine, bounds)
    return cost_gates(measure(candidate.directory, engine, drawn(x, bounds.batch)), bounds)
