"""Scored transactions, as far as telemetry reads them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rows:
    segments: list[str]
    time_ms: np.ndarray

    def __len__(self) -> int:
        return len(self.time_ms)
