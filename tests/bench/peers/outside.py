"""An engine in a process and an environment of its own, timed in turn with those of this one.

    parent                                            child
    "SIZE CALLS THREADS\\n"                      ──▶   runs the first SIZE rows CALLS times, each call timed together
    {"secs": …} and, asked with CALLS 0, {"file": …}  ◀──   the answers as .npy

The child answers {"ready": true} first. Only the calls are timed, never the pipe: their CPU time on one thread, the
elapsed time on more.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

HERE = Path(__file__).parent


class Outside:
    """The parent's side."""

    def __init__(self, python: Path, script: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), str(HERE / script), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._told()

    def secs(self, size: int, calls: int, threads: int) -> float:
        """Return how long so many calls of so many rows took: CPU time on one thread, else elapsed time."""
        return float(self._asked(size, calls, threads)["secs"])

    def answers(self, size: int, threads: int) -> np.ndarray:
        """Return the margins [size, libraries] of the first rows, as found on so many threads."""
        path = Path(self._asked(size, 0, threads)["file"])
        found = np.load(path)
        path.unlink()
        return found

    def close(self) -> None:
        self._process.communicate()

    def _asked(self, *numbers: int) -> dict:
        self._process.stdin.write(" ".join(map(str, numbers)) + "\n")
        self._process.stdin.flush()
        return self._told()

    def _told(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the contender ended with {self._process.wait()}")
        return json.loads(line)


def answers_to() -> TextIO:
    """Return where the child's answers go, called first: whatever libraries print goes to standard error from then."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return said


def answer(said: TextIO, rows: np.ndarray, prepare: Callable[[np.ndarray, int], Callable[[], np.ndarray]]) -> None:
    """The child's side, until its input ends. prepare(rows, threads) returns what is timed."""
    print(json.dumps({"ready": True}), file=said, flush=True)
    ready: dict[tuple[int, int], Callable[[], np.ndarray]] = {}
    for line in sys.stdin:
        size, calls, threads = map(int, line.split())
        predict = ready.get((size, threads))
        if predict is None:
            predict = ready[size, threads] = prepare(rows[:size].copy(), threads)
            predict()
        if not calls:
            with tempfile.NamedTemporaryFile(suffix=".npy", delete=False) as file:
                np.save(file, predict())
            print(json.dumps({"file": file.name}), file=said, flush=True)
            continue
        clock = time.process_time if threads == 1 else time.perf_counter
        start = clock()
        for _ in range(calls):
            predict()
        print(json.dumps({"secs": clock() - start}), file=said, flush=True)
