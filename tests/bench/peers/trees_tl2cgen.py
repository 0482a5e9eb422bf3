"""Both libraries' trees compiled to C by tl2cgen: a contender of tests/bench/engines.py.

    python trees_tl2cgen.py FOLDER     in an environment that holds requirements/tl2cgen.txt

FOLDER holds xgboost.json, lightgbm.txt and rows.npy float32[n, k]; see outside.py for what is said over the pipes.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import tl2cgen
import treelite

from outside import answer, answers_to


def compiled(folder: Path, model: treelite.Model, name: str) -> Path:
    """Return the library of one model, kept beside it: compiling takes a minute."""
    path = folder / f"{name}.so"
    if not path.exists():
        parameters = {"parallel_comp": 8, "quantize": 1}
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch, path.name)
            tl2cgen.export_lib(model, toolchain="gcc", libpath=str(fresh), params=parameters, nthread=1)
            fresh.replace(path)
    return path


def main(folder: Path) -> None:
    """Answer with XGBoost's and LightGBM's margins, float32[n, 2]."""
    said = answers_to()
    models = {
        "xgboost": treelite.frontend.load_xgboost_model(str(folder / "xgboost.json")),
        "lightgbm": treelite.frontend.load_lightgbm_model(str(folder / "lightgbm.txt")),
    }
    paths = [compiled(folder, model, name) for name, model in models.items()]

    def prepare(rows: np.ndarray, threads: int) -> object:
        predictors = [tl2cgen.Predictor(str(path), nthread=threads) for path in paths]

        def predict() -> np.ndarray:
            matrix = tl2cgen.DMatrix(rows, dtype="float32")  # as every batch would have to be
            return np.column_stack([one.predict(matrix, pred_margin=True).ravel() for one in predictors])

        return predict

    answer(said, np.load(folder / "rows.npy"), prepare)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
