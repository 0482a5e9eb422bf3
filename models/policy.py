"""From a score to an outcome."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import ModelError

APPROVE = 0
REVIEW = 1
DECLINE = 2
OUTCOMES = ("approve", "review", "decline")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A score from `review` on goes to review, from `decline` on is declined: 0 < review <= decline <= 1.

    Both are rounded to float32, the type of a score, so that a threshold taken from a score meets that score exactly.
    With both equal, nothing goes to review.
    """

    review: float
    decline: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "review", float(np.float32(self.review)))
        object.__setattr__(self, "decline", float(np.float32(self.decline)))
        if not 0.0 < self.review <= self.decline <= 1.0:
            raise ModelError(
                f"The thresholds must satisfy 0 < review <= decline <= 1, "
                f"but review is {self.review:g} and decline {self.decline:g}.",
            )

    def decide(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Return the outcome (APPROVE, REVIEW or DECLINE) uint8[n] of each score float32[n].

        A score that is not a number goes to review: it must never pass unseen.
        """
        seen = ~(scores < np.float32(self.review))
        return seen.astype(np.uint8) + (scores >= np.float32(self.decline)).astype(np.uint8)
