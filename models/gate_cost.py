"""Gates on what a version costs: the time of a batch and the memory that loading it takes, with what explains it.

Measured in a process of its own, as a worker would meet the version: in this one, the memory of what was loaded before
would be used again, and growth not be seen. What is scored are rows of the holdout: how long a row takes goes by the
leaves it reaches. `python -m models.gate_cost BUNDLE ENGINE ROWS.npy` prints one JSON object.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

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


def drawn(x: npt.NDArray[np.float32], batch: int) -> npt.NDArray[np.float32]:
    """Return a batch of rows of x float32[n, k], some of them again where there are fewer; one of NaN where none is."""
    if not len(x):
        return np.full((batch, x.shape[1]), np.nan, np.float32)
    return x[np.random.default_rng(SEED).choice(len(x), batch, replace=len(x) < batch)]


def unmeasured(engine: str, bounds: Bounds) -> list[Gate]:
    """Return the gates where what the engine needs is not here: nothing that another one costs says anything of it."""
    note = f"engine {engine} was not measured here, for there is no CUDA; workers that have it will run it"
    limits = _limits(bounds.batch, bounds)
    return [Gate(name=name, value=None, at_most=most, note=note, unjudged=True) for name, most in limits]


def measure(directory: Path, engine: str, x: npt.NDArray[np.float32]) -> Cost:
    """Load a bundle in a new process and score x float32[batch, k] there. Raises ModelError where it cannot."""
    try:
        with tempfile.TemporaryDirectory(prefix="fraudstream-") as folder:
            rows = Path(folder, "rows.npy")
            np.save(rows, x, allow_pickle=False)
            # -P: a folder named models where the user stands must not be taken for this package.
            command = [sys.executable, "-P", "-m", "models.gate_cost", str(directory), engine, str(rows)]
            done = subprocess.run(command, capture_output=True, check=True, timeout=DEADLINE_SECS)  # noqa: S603 (ourselves)
        return msgspec.json.decode(done.stdout, type=Cost)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.decode(errors="replace").strip().splitlines() or ["it ended without a word"])[-1]
        raise ModelError(f"The cost of {directory} could not be measured: {last}") from error
    except (subprocess.TimeoutExpired, msgspec.MsgspecError) as error:
        raise ModelError(f"The cost of {directory} could not be measured ({error}); try again.") from error


def cost_gates(cost: Cost, bounds: Bounds) -> list[Gate]:
    """Return the gates on what was measured."""
    (batch, most_ms), (memory, most_mib) = _limits(cost.batch, bounds)
    note = f"engine {cost.engine}"
    loaded = f"{note}, loaded in {cost.load_secs:.2f} s; rows of the holdout"
    return [
        Gate(name=batch, value=cost.batch_secs * 1e3, at_most=most_ms, note=loaded),
        Gate(name=memory, value=cost.resident_bytes / (1 << 20), at_most=most_mib, note=note),
    ]


def _limits(batch: int, bounds: Bounds) -> tuple[tuple[str, float], tuple[str, float]]:
    """Return name and bound of each gate."""
    return (
        (f"milliseconds a batch of {batch}", bounds.max_batch_ms),
        ("MiB resident after loading", bounds.max_memory_bytes / (1 << 20)),
    )


def _measure_here(directory: Path, engine_name: str, x: npt.NDArray[np.float32]) -> Cost:
    warm()  # the kernels' own memory and time are not this version's
    before = _resident_bytes()
    started = time.perf_counter()
    bundle = open_bundle(directory)
    forests = read_forests(bundle)
    engine, explainer = load_engine(bundle, engine_name, forests), Explainer(bundle, forests)
    engine.score(x)
    explainer.top(x[:EXPLAINED])
    loaded = time.perf_counter() - started
    secs = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        engine.score(x)
        secs.append(time.perf_counter() - started)
    grown = max(0, _resident_bytes() - before)
    return Cost(engine.name, loaded, statistics.median(secs), grown, len(x))


def _resident_bytes() -> int:
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    try:
        found = _measure_here(Path(sys.argv[1]), sys.argv[2], np.load(sys.argv[3], allow_pickle=False))
    except ModelError as error:
        sys.exit(str(error))
    print(msgspec.json.encode(found).decode())
