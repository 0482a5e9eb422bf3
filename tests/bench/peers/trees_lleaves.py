"""LightGBM's trees compiled to machine code by lleaves: a contender of tests/bench/engines.py.

    python trees_lleaves.py FOLDER     in an environment that holds requirements/lleaves.txt

FOLDER as in trees_tl2cgen.py. It knows nothing of XGBoost.
"""

import sys
from pathlib import Path

import lleaves
import numpy as np

from outside import answer, answers_to


def main(folder: Path) -> None:
    """Answer with LightGBM's margins, float64[n, 1]."""
    said = answers_to()
    model = lleaves.Model(model_file=str(folder / "lightgbm.txt"))
    model.compile(cache=str(folder / "lightgbm.lleaves"), raw_score=True)

    def prepare(rows: np.ndarray, threads: int) -> object:
        return lambda: model.predict(rows, n_jobs=threads).reshape(-1, 1)

    answer(said, np.load(folder / "rows.npy"), prepare)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
