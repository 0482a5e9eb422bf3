"""Gates on what a version costs: the time of a batch and the memory that loading it takes, with what explains it.

Measured in a process of its own, as a worker would meet the version: in this one, the memory of what was loaded before
would be used again, and growth not be seen. `python -m models.gate_cost BUNDLE ENGINE BATCH` prints one JSON object.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from models.bundle import open_bundle
from models.ensemble import load_engine, read_forests, warm
from models.errors import ModelError
from models.gate import Bounds, Gate
from models.reasons import Explainer

SEED = 20_250_104
REPEATS = 31
EXPLAINED = 16  # rows of a batch that get reasons
DEADLINE_SECS = 300.0
STATM = Path("/proc/self/statm")


class Cost(msgspec.Struct, frozen=True):
    """Seconds to load and the median of a batch, bytes by which the resident memory grew, rows in the batch."""

    engine: str
    load_secs: float
    batch_secs: float
    resident_bytes: int
    batch: int


def measure(directory: Path, engine: str, batch: int) -> Cost:
    """Load a bundle in a new process and score batches of so many rows. Raises ModelError where it cannot."""
    # -P: a folder named models where the user stands must not be taken for this package.
    command = [sys.executable, "-P", "-m", "models.gate_cost", str(directory), engine, str(batch)]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=DEADLINE_SECS)  # noqa: S603 (ourselves)
        return msgspec.json.decode(done.stdout, type=Cost)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.decode(errors="replace").strip().splitlines() or ["it ended without a word"])[-1]
        raise ModelError(f"The cost of {directory} could not be measured: {last}") from error
    except (subprocess.TimeoutExpired, msgspec.MsgspecError) as error:
        raise ModelError(f"The cost of {directory} could not be measured ({error}); try again.") from error


def cost_gates(cost: Cost, bounds: Bounds) -> list[Gate]:
    """Return the gates on what was measured."""
    return [
        Gate(
            name=f"milliseconds a batch of {cost.batch}",
            value=cost.batch_secs * 1e3,
            at_most=bounds.max_batch_ms,
            note=f"engine {cost.engine}, loaded in {cost.load_secs:.2f} s",
        ),
        Gate(
            name="MiB resident after loading",
            value=cost.resident_bytes / (1 << 20),
            at_most=bounds.max_memory_bytes / (1 << 20),
            note=f"engine {cost.engine}",
        ),
    ]


def _measure_here(directory: Path, engine_name: str, batch: int) -> Cost:
    warm()  # the kernels' own memory and time are not this version's
    before = _resident_bytes()
    started = time.perf_counter()
    bundle = open_bundle(directory)
    forests = read_forests(bundle)
    engine, explainer = load_engine(bundle, engine_name, forests), Explainer(bundle, forests)
    x = np.random.default_rng(SEED).normal(size=(batch, len(bundle.feature_names))).astype(np.float32)
    engine.score(x)
    explainer.top(x[:EXPLAINED])
    loaded = time.perf_counter() - started
    secs = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        engine.score(x)
        secs.append(time.perf_counter() - started)
    grown = max(0, _resident_bytes() - before)
    return Cost(engine.name, loaded, statistics.median(secs), grown, batch)


def _resident_bytes() -> int:
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    try:
        found = _measure_here(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except ModelError as error:
        sys.exit(str(error))
    print(msgspec.json.encode(found).decode())
