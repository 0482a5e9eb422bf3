"""What everybody races on: payments of 100,000 users, an ensemble of 600 trees, and the right answer to each payment.

Made from one seed and kept under var/bench. Users are drawn by Zipf's law; the first WARM payments span more than the
30 days that features look back, so that afterwards every window is full and payments leave it as others come.

    0               WARM
    ├── 33 days ─────┼── SHORT ─┤                              measured of the slowest
                     ├── MIDDLE ──────────┤                    of the tuned peers
                     ├── LONG ─────────────────────────────┤   of ours and null
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import orjson
import pyarrow as pa
import xgboost
from pyarrow import feather

from models.bundle import Bundle, open_bundle, write_bundle
from models.ensemble import forest_engine
from models.manifest import MANIFEST
from models.policy import Thresholds
from models.sentences import Sentence
from models.threshold_change import with_thresholds
from models.train import train
from state.features import DAY_MS, StateSpec, default_feature_set
from state.history import compute
from state.windows import warm
from stream.codec import Decoder
from stream.files import FileRecord
from stream.settings import Settings

KEPT = Path(__file__).parents[3] / "var" / "bench"
FORM = 1  # raise it with any change to what is made here
SEED = 20_260_101
USERS = 100_000
ZIPF = 0.8
A_MONTH = 90_000  # payments in 30 days, of all users together
WARM, SHORT, MIDDLE, LONG = 100_000, 15_000, 60_000, 300_000
START_MS = 1_750_000_000_000
TREES = 300  # of each library
LEARNED_FROM = 20_000
REVIEW_RATE, DECLINE_RATE = 0.02, 0.005


@dataclass(frozen=True)
class Scene:
    """keys, values: of the records; times_ms int64[n]; scores float32[n]: ours, of each payment, from exact windows.

    bundle holds about 2 % of payments, silent none: the same model otherwise.
    """

    directory: Path
    keys: list[bytes]
    values: list[bytes]
    times_ms: np.ndarray
    scores: np.ndarray

    @property
    def bundle(self) -> Path:
        return self.directory / "bundle"

    @property
    def silent(self) -> Path:
        return self.directory / "silent"


def scene() -> Scene:
    """Return the scene, made the first time."""
    parts = (
        FORM,
        SEED,
        USERS,
        ZIPF,
        A_MONTH,
        WARM,
        LONG,
        TREES,
        default_feature_set().hash,
        xgboost.__version__,
        lightgbm.__version__,
    )
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    directory = KEPT / f"scene-{name}"
    if not (directory / "records.arrow").exists():
        _make(directory)
    table = feather.read_table(directory / "records.arrow")
    columns = [table.column(name) for name in ("key", "value", "time_ms", "score")]
    return Scene(directory, columns[0].to_pylist(), columns[1].to_pylist(), *(c.to_numpy() for c in columns[2:]))


def _make(directory: Path) -> None:
    print("making payments and trees, which later runs find", file=sys.stderr)
    keys, values, times_ms = _payments()
    settings, features = Settings(), default_feature_set()
    messages = [
        FileRecord(*row, offset, row_time)
        for offset, (*row, row_time) in enumerate(zip(keys, values, times_ms.tolist(), strict=True))
    ]
    decoded, refused = Decoder(settings.mapping(), settings.limits()).decode(0, messages)
    assert not refused, refused[:3]
    spec = StateSpec()
    warm(spec, features)
    x, flags = compute(spec, features, decoded.users, decoded.events)
    assert not flags[:1].any()
    trained = _bundle(directory / "bundle.first", x[WARM : WARM + LEARNED_FROM], times_ms[:LEARNED_FROM])
    scores = forest_engine(trained).score(x)
    measured = scores[WARM:]
    review, decline = (float(np.quantile(measured, 1 - rate)) for rate in (REVIEW_RATE, DECLINE_RATE))
    _with(trained, directory / "bundle", Thresholds(review, decline))
    _with(trained, directory / "silent", Thresholds(1.0, 1.0))
    records = {"key": keys, "value": values, "time_ms": times_ms, "score": scores}
    feather.write_feather(pa.table(records), directory / "records.arrow")


def _payments() -> tuple[list[bytes], list[bytes], np.ndarray]:
    rng = np.random.default_rng(SEED)
    n = WARM + LONG
    weights = 1.0 / np.arange(1, USERS + 1) ** ZIPF
    user = rng.choice(USERS, n, p=weights / weights.sum())
    times_ms = START_MS + np.cumsum(rng.exponential(30 * DAY_MS / A_MONTH, n)).astype(np.int64)
    cents = np.maximum(1, rng.lognormal(8, 1, n).astype(np.int64))
    habit = (rng.pareto(1.2, n) * 2).astype(np.int64)  # a few merchants often, many once
    country = np.where(rng.random(n) < 0.97, user % 40, rng.integers(0, 60, n))
    device = np.where(rng.random(n) < 0.05, -1, (rng.random(n) < 0.1).astype(np.int64))
    keys, values = [], []
    columns = (user, times_ms, cents, habit, country, device)
    for number, (who, at, amount, shop, land, own) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        payment = {
            "transaction_id": f"t-{number:07d}",
            "user_id": f"user-{who:06d}",
            "amount": amount / 100,
            "currency": "EUR",
            "event_time": at,
            "merchant_id": f"m-{who % 500}-{shop}",
            "country": f"{chr(65 + land // 26)}{chr(65 + land % 26)}",
        }
        if own >= 0:
            payment["device_id"] = f"d-{who}-{own}"
        keys.append(payment["user_id"].encode())
        values.append(orjson.dumps(payment))
    return keys, values, times_ms


def _bundle(directory: Path, x: np.ndarray, times_ms: np.ndarray) -> Bundle:
    """Train on features whose risk is a rule with noise, so that trees are as large as those of real payments."""
    rng = np.random.default_rng(SEED + 1)
    names = default_feature_set().names
    column = {name: np.nan_to_num(x[:, at]) for at, name in enumerate(names)}
    risk = (
        np.log1p(column["amount"])
        + 0.8 * column["count_24h"]
        + np.log1p(column["ratio_amount_7d"])
        + 0.7 * column["first_seen_merchant_30d"]
        - 0.1 * np.log1p(column["seconds_since_last"])
        + rng.normal(size=len(x))
    )
    labels = (risk > np.quantile(risk, 0.9)).astype(np.int8)
    trained = train(x, labels, times_ms, feature_names=names, seed=SEED, rounds=TREES, threads=1)
    features = default_feature_set()
    return write_bundle(
        directory,
        trained,
        feature_set=features.source,
        feature_set_hash=features.hash,
        sentences={f.name: Sentence(f.text, f.text_zero, f.text_nan) for f in features.features},
        lineage={"seed": SEED},
        replace=True,
    )


def _with(bundle: Bundle, directory: Path, thresholds: Thresholds) -> Bundle:
    _, files = with_thresholds(bundle, (bundle.directory / MANIFEST).read_bytes(), thresholds)
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return open_bundle(directory)
