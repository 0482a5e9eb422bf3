"""Fraud models: training, export, engines, policy, explanation. A leaf: knows neither the stream nor its state.

The way through it: `train.train` → `bundle.write_bundle` → `bundle.open_bundle` → `ensemble.load_engine`; then, for
each batch, `Engine.score` → `Thresholds.decide` → `reasons.Explainer.top` for what was not approved.
"""

__all__ = [
    "bundle",
    "ensemble",
    "errors",
    "forest",
    "forest_bank",
    "forest_engine",
    "forest_kernel",
    "history",
    "jit",
    "lanes_kernel",
    "leafbits_kernel",
    "manifest",
    "meta",
    "metrics",
    "onnx_graph",
    "policy",
    "reasons",
    "self_check",
    "sentences",
    "shap",
    "shap_bank",
    "shap_kernel",
    "train",
]
