"""Compiles the window kernel of a feature set in a process of its own, beside a worker that goes on scoring.

Compiling takes tens of seconds and holds the interpreter's lock for most of them, in which a worker would decide
nothing. So another process compiles, at a lower priority, and leaves the machine code in Numba's cache on disk, where
`state.windows.load` then finds it in a moment. One compiles at a time on a machine: two workers that follow one
registry meet the same feature set at once, and the second then finds what the first has written.

    worker's thread                              process beside it
    Step 1  starts it, tells spec and set   ──▶  Step 2  waits for its turn
                                                 Step 3  compiles, or finds it on disk
                                                 Step 4  looks whether it is on disk now
    Step 5  learns what came of it          ◀──

The process ends itself when the worker does: nothing is left behind that nobody waits for.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Final

from state.errors import StateError
from state.features import FeatureSet, StateSpec, parse_feature_set

__all__ = ["compile_beside"]

#: As long as a busy machine may take for two workers' feature sets, one after the other.
PATIENCE_SECS: Final = 600.0
#: A worker's share of a full processor is then about three times the compiler's. The lowest priority (19) would get a
#: seventieth: on a busy machine the compilation took minutes, and the promotion with it.
NICENESS: Final = 5
LOCK: Final = "fraudstream-compiles.lock"
FAILED: Final = 1


def compile_beside(spec: StateSpec, feature_set: FeatureSet, patience_secs: float = PATIENCE_SECS) -> str:
    """Have the kernel of a feature set compiled and wait for it; return why that failed, or nothing.

    Waits without the interpreter's lock. Afterwards `state.windows.load` finds the kernel.
    """
    task = json.dumps({"spec": asdict(spec), "feature_set": feature_set.source.decode()})
    paths = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109 - what an empty entry means
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "state.compile_process"],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
            with process:
                return _wait(process, task, said, patience_secs)
    except OSError as error:  # no executable, no memory, no folder for what it says
        return f"no process could be started ({error})"


def _wait(process: subprocess.Popen[str], task: str, said: IO[str], patience_secs: float) -> str:
    assert process.stdin is not None
    try:
        process.stdin.write(task + "\n")
        process.stdin.flush()  # and stays open: its end is how the process learns of ours
        code = process.wait(patience_secs)
    except OSError as error:
        process.kill()
        return f"the compiler could not be told what to compile ({error})"
    except subprocess.TimeoutExpired:
        process.kill()
        return f"the compiler was not done within {patience_secs:g} s"
    finally:
        with suppress(OSError):
            process.stdin.close()
    if code == 0:
        return ""
    said.seek(0)
    last = (said.read().strip().splitlines() or [""])[-1]
    return last if code == FAILED and last else f"the compiler ended with {code} ({last or 'it said nothing'})"


def main() -> int:
    """Steps 2 to 4: read the task from standard input; print why it failed and return 1, or return 0."""
    with suppress(OSError):
        os.nice(NICENESS)
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    fields = tuple(task["spec"].pop("fields"))
    failure = _compile(StateSpec(fields=fields, **task["spec"]), parse_feature_set(task["feature_set"].encode()))
    if failure:
        print(failure)
    return FAILED if failure else 0


def _compile(spec: StateSpec, feature_set: FeatureSet) -> str:
    try:
        from state import windows  # noqa: PLC0415 - loads the compiler, after the priority is lowered

        with _turn():
            windows.warm(spec, feature_set)
            found = windows.load(spec, feature_set)
    # RuntimeError is what Numba raises where it finds no folder to keep its work in.
    except (OSError, RuntimeError, StateError) as error:
        return f"it cannot be compiled or kept on disk ({error})"
    return "" if found else "what was compiled is not found on disk again"


def _end_with_the_worker() -> None:
    sys.stdin.read()
    os._exit(FAILED)


@contextmanager
def _turn(folder: Path | None = None) -> Iterator[None]:
    """Hold the machine's lock; where there can be none, go on without: two at a time are slow, not wrong."""
    try:
        import fcntl  # noqa: PLC0415 - not there on every system

        lock = _open_lock((folder or Path(tempfile.gettempdir())) / LOCK)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    """Open the lock file, which another user may have made."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)


if __name__ == "__main__":
    sys.exit(main())
