"""The kernels' own cache."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import numpy as np
from models import forest_kernel
out = np.empty(1, np.float32)
forest_kernel.scores(np.zeros(1), np.zeros(1), 0.0, 1.0, 1.0, out)
print(sum(forest_kernel.scores.stats.cache_hits.values()))
"""


def test_kernels_are_cached_and_a_change_of_any_kernel_file_recompiles_them(tmp_path):
    """Numba looks only at the file of the function itself; a stale cache would give stale scores."""
    package = tmp_path / "models"
    package.mkdir()
    for source in (ROOT / "models").glob("*.py"):
        (package / source.name).write_bytes(source.read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def hits():
        command = [sys.executable, "-c", SCRIPT]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert (hits(), hits()) == (0, 1)
    for name in ("lanes_kernel.py", "forest_bank.py"):
        with (package / name).open("a") as file:
            file.write("# changed\n")
        assert (hits(), hits()) == (0, 1), name
