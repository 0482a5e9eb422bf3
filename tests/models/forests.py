"""Forests of both libraries of every form, and rows that stand where their comparisons are decided."""

import lightgbm
import numpy as np
import xgboost

from models.forest import LIGHTGBM_ZERO, Forest, parse_lightgbm, parse_xgboost

MAX = np.finfo(np.float32).max
TINY = np.float32(1e-45)

XGBOOST_KINDS = {
    "depth-6": {"max_depth": 6},
    "stumps": {"max_depth": 1},
    "by-leaves": {"grow_policy": "lossguide", "max_leaves": 20, "max_depth": 0},
    "exact": {"tree_method": "exact", "max_depth": 5},
    "pruned": {"max_depth": 8, "gamma": 3.0, "tree_method": "exact"},
    "single-leaf": {"gamma": 1e9},
    "parallel-trees": {"num_parallel_tree": 3, "subsample": 0.5},
    "base-score": {"base_score": 0.03},
    "dart": {"booster": "dart", "rate_drop": 0.3, "one_drop": 1},
    "many-bins": {"max_bin": 4096, "max_depth": 0, "max_leaves": 300, "grow_policy": "lossguide", "reg_lambda": 0.0},
}
LIGHTGBM_KINDS = {
    "31-leaves": {},
    "stumps": {"num_leaves": 2},
    "deep": {"num_leaves": 120, "min_data_in_leaf": 1},
    "no-missing": {"use_missing": False},
    "single-leaf": {"min_data_in_leaf": 100_000},
    "dart": {"boosting": "dart"},
    "few-bins": {"max_bin": 8},
    "many-bins": {"max_bin": 4096, "num_leaves": 300, "min_data_in_leaf": 1, "min_data_in_bin": 1},
}


def awkward_data(seed):
    """Columns that stress each rule: gaps, no gaps, counts, values about LightGBM's zero, huge ones, a constant."""
    rng = np.random.default_rng(seed)
    n = 1500
    x = rng.normal(size=(n, 8)).astype(np.float32)
    x[:, 1] = np.where(rng.random(n) < 0.3, np.nan, x[:, 1])
    x[:, 2] = rng.poisson(2, n)
    x[:, 3] = rng.choice(np.array([-3e-35, -1e-35, -5e-36, 0, 5e-36, 1e-35, 3e-35], np.float32), n)
    x[:, 4] *= np.float32(1e36)
    x[:, 5] = 7.0
    x[:, 6] = np.where(rng.random(n) < 0.5, 0.0, x[:, 6])
    risk = np.nan_to_num(x[:, 1]) + x[:, 0] * x[:, 6] + x[:, 2] / 2 + np.sign(x[:, 3]) + x[:, 4] / 1e36
    return x, (risk + rng.normal(size=n) > 2.0).astype(np.int8)


def awkward_rows(forest, seed, n=4000):
    """Rows of thresholds, their neighbours one ULP away, NaN, infinities, zeros, denormals and plain values."""
    rng = np.random.default_rng(seed)
    zero = np.float32(LIGHTGBM_ZERO)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, TINY, -TINY, 1e-40, -1e-40, MAX, -MAX], np.float32)
    zone = np.array([zero, -zero, *np.nextafter([zero, zero, -zero, -zero], [0, 1, 0, -1], dtype=np.float32)])
    rows = np.empty((n, forest.n_features), np.float32)
    for column in range(forest.n_features):
        own = forest.threshold[(forest.left >= 0) & (forest.feature == column)]
        own = own if len(own) else np.zeros(1, np.float32)
        edges = [own, np.nextafter(own, np.float32(MAX)), np.nextafter(own, np.float32(-MAX))]
        pools = [np.concatenate(edges), special, zone.astype(np.float32), rng.normal(size=64).astype(np.float32)]
        choice = rng.choice(4, n, p=[0.6, 0.15, 0.1, 0.15])
        rows[:, column] = np.choose(choice, [rng.choice(pool, n) for pool in pools])
    return rows


def both_kinds():
    """Return the names that `forest_of` knows."""
    return [*(f"xgboost {kind}" for kind in XGBOOST_KINDS), *(f"lightgbm {kind}" for kind in LIGHTGBM_KINDS)]


def forest_of(name, seed=0):
    """Train one kind, "xgboost depth-6" for example, and return the booster and its plain form."""
    library, kind = name.split()
    if library == "xgboost":
        booster = train_xgboost(kind, seed)
        return booster, parse_xgboost(bytes(booster.save_raw("json")))
    booster = train_lightgbm(kind, seed)
    return booster, parse_lightgbm(booster.model_to_string())


def train_xgboost(kind, seed=0):
    x, y = awkward_data(seed)
    params = {"objective": "binary:logistic", "nthread": 1, "seed": seed, "verbosity": 0, **XGBOOST_KINDS[kind]}
    return xgboost.train(params, xgboost.DMatrix(x, y), 8)


def train_lightgbm(kind, seed=0):
    x, y = awkward_data(seed)
    params = {"objective": "binary", "num_threads": 1, "seed": seed, "verbose": -1, **LIGHTGBM_KINDS[kind]}
    return lightgbm.train(params, lightgbm.Dataset(x, y, params=params), 8)


def random_forest(rng, n_features, n_trees, most_leaves, distinct):
    """Return trees of random form: some a chain, some a single leaf, each node's NaN direction its own."""
    pool = rng.normal(size=(n_features, distinct)).astype(np.float32)
    nodes, roots = [], []

    def grow(leaves):
        here = len(nodes)
        nodes.append(None)
        if leaves == 1:
            nodes[here] = (0, 0.0, False, -1, -1, rng.normal(), here, float(rng.integers(1, 50)))
            return here
        one = int(rng.choice([1, leaves - 1, rng.integers(1, leaves)]))
        feature = int(rng.integers(n_features))
        left, right = grow(one), grow(leaves - one)
        cover = nodes[left][-1] + nodes[right][-1]
        nodes[here] = (feature, rng.choice(pool[feature]), bool(rng.integers(2)), left, right, 0.0, -1, cover)
        return here

    for _ in range(n_trees):
        roots.append(len(nodes))
        grow(int(rng.integers(1, most_leaves + 1)))
    kinds = (np.int32, np.float32, np.bool_, np.int32, np.int32, np.float64, np.int32, np.float64)
    columns = [np.array(column, kind) for column, kind in zip(zip(*nodes, strict=True), kinds, strict=True)]
    return Forest(n_features, float(rng.normal()), np.array(roots, np.int32), *columns)
