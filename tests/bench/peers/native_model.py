"""The ensemble as its libraries predict it, and as ONNX Runtime does; and the decision that every contender writes.

For the peers' own environments: nothing of the project is imported.
"""

import json
import time
from pathlib import Path

import numpy as np
import orjson


class Model:
    """Scores float32[n, 24] and decides. graph: a file that ONNX Runtime predicts from, in place of the libraries."""

    def __init__(self, bundle, graph=None):
        folder = Path(bundle)
        manifest = json.loads((folder / "manifest.json").read_text())
        self.version = manifest["version"]
        self.features = manifest["feature_set_hash"]
        self.engine = "onnx" if graph else "libraries"
        self.review, self.decline = manifest["thresholds"]["review"], manifest["thresholds"]["decline"]
        self.score = _onnx(graph) if graph else _libraries(folder)

    def score_rows(self, rows):
        """Return a list of scores for a list of feature lists."""
        return self.score(np.array(rows, np.float32)).tolist()

    def decision(self, payment, score):
        """Return the decision as JSON bytes."""
        word = "approve" if score < self.review else "review" if score < self.decline else "decline"
        return orjson.dumps(
            {
                "transaction_id": payment["transaction_id"],
                "user_id": payment["user_id"],
                "decision": word,
                "score": score,
                "model": self.version,
                "engine": self.engine,
                "feature_set": self.features,
                "reasons": (),
                "flags": (),
                "segment": payment["country"],
                "event_time": payment["event_time"],
                "scored_at": time.time_ns() // 1_000_000,
            }
        )


def _libraries(folder):
    import lightgbm
    import xgboost

    meta = json.loads((folder / "meta.json").read_text())
    first = xgboost.Booster(model_file=str(folder / "xgboost.json"))
    first.set_param({"nthread": 1})
    second = lightgbm.Booster(model_file=str(folder / "lightgbm.txt"))

    def score(x):
        one = first.inplace_predict(x, predict_type="margin", missing=np.nan)
        other = second.predict(x, raw_score=True, num_threads=1)
        return 1.0 / (1.0 + np.exp(-(meta["bias"] + meta["xgboost"] * one + meta["lightgbm"] * other)))

    return score


def _onnx(graph):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["score"], {"x": x})[0]
