"""What everybody races on: payments of 100,000 users, an ensemble of 600 trees, and the right answer to each payment.

Made from one seed and kept under var/bench. Users are drawn by Zipf's law; the first WARM payments span more than the
30 days that features look back, so that afterwards every window is full and payments leave it as others come.

    0               WARM
    ├── 33 days ─────┼── SHORT ─┤                                         measured of the slowest
                     ├── MIDDLE ──────────┤                               of the tuned peers
                     ├── QUICK ───────────────┤                           at most, in the race of three minutes
                     ├── LONG ─────────────────────────────────┤          of ours and null
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import msgspec
import numpy as np
import onnx
import orjson
import pyarrow as pa
import xgboost
from pyarrow import feather

from models.bundle import Bundle, open_bundle, write_bundle
from models.ensemble import forest_engine, read_forests
from models.manifest import MANIFEST
from models.onnx_graph import INPUT, MARGINS, SCORE, score_constants, score_nodes, serialise, tree_node
from models.policy import Thresholds
from models.sentences import Sentence
from models.threshold_change import with_thresholds
from models.train import train
from state.features import DAY_MS, StateSpec, default_feature_set
from state.history import compute
from state.windows import warm
from stream.codec import DecisionEncoder, Decoded, Decoder
from stream.feature_log import FeatureLog
from stream.files import FileRecord
from stream.scoring import prove
from stream.settings import Settings

KEPT = Path(__file__).parents[3] / "var" / "bench"
FORM = 2  # raise it with any change to what is made here
SEED = 20_260_101
USERS = 100_000
ZIPF = 0.8
A_MONTH = 90_000  # payments in 30 days, of all users together
WARM, SHORT, MIDDLE, QUICK, LONG = 100_000, 15_000, 60_000, 100_000, 900_000
START_MS = 1_750_000_000_000
TREES = 300  # of each library
LEARNED_FROM = 20_000
REVIEW_RATE, DECLINE_RATE = 0.02, 0.005
SAMPLE = 8_192  # payments whose decisions and feature rows the null pipeline writes in turn
ROWS_A_RECORD = 512  # of the feature log: a full batch's share of one of four partitions


@dataclass(frozen=True)
class Scene:
    """keys, values: of the records; times_ms int64[n]; scores float32[n]: ours, of each payment, from exact windows.

    bundle holds about 2 % of payments, silent none: the same model otherwise. graph: its ensemble in ONNX with one node
    for each library, as their converters write it. written: what ours writes of the first measured payments.
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

    @property
    def graph(self) -> Path:
        return self.directory / "one_node_a_library.onnx"

    @property
    def written(self) -> Path:
        return self.directory / "written.msgpack"

    @property
    def thresholds(self) -> Thresholds:
        return open_bundle(self.bundle).thresholds


class Written(msgspec.Struct, frozen=True):
    """Decisions and records of the feature log as ours writes them.

    one_row, further_row: bytes of a record of one row, and of each row more.
    """

    decisions: list[bytes]
    records: list[bytes]
    one_row: int
    further_row: float


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
    (directory / "one_node_a_library.onnx").write_bytes(_one_node_a_library(trained))
    measured = scores[WARM:]
    review, decline = (float(np.quantile(measured, 1 - rate)) for rate in (REVIEW_RATE, DECLINE_RATE))
    bundle = _with(trained, directory / "bundle", Thresholds(review, decline))
    sample = slice(WARM, WARM + SAMPLE)
    written = _written(bundle, decoded.rows(sample), x[sample], flags[sample])
    (directory / "written.msgpack").write_bytes(msgspec.msgpack.encode(written))
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


def _written(bundle: Bundle, decoded: Decoded, x: np.ndarray, flags: np.ndarray) -> Written:
    """Return what the worker's own line makes of these payments."""
    scoring = prove(Settings(), bundle.directory)
    names, feature_set = scoring.feature_set.names, scoring.feature_set.hash
    verdicts = scoring.judge.judge(x, decoded.events.currency)
    encoder = DecisionEncoder(scoring.judge.outcome_names, scoring.model, scoring.engine, feature_set)
    decisions = encoder.encode(decoded, verdicts.scores, verdicts.outcomes, flags, verdicts.reasons, START_MS)
    log = FeatureLog(names, feature_set, max_bytes=1 << 20)
    ids, offsets, times_ms = decoded.transaction_column(), decoded.events.offset, decoded.events.time_ms
    parts = [slice(first, first + ROWS_A_RECORD) for first in range(0, len(x), ROWS_A_RECORD)]
    columns = ids, decoded.partitions, offsets, times_ms, x
    records = [record for at in parts for _, _, record in log.encode(*(column[at] for column in columns))]
    one_row, whole = log.row_bytes(len(ids[0].as_py())), len(records[0])
    return Written(decisions, records, one_row, (whole - one_row) / (ROWS_A_RECORD - 1))


def _one_node_a_library(bundle: Bundle) -> bytes:
    """Return the bundle's graph with all trees of a library in one node: the cheapest there is for one row."""
    both = zip(read_forests(bundle), ("xgboost_margin", "lightgbm_margin"), strict=True)
    nodes = [tree_node(forest, INPUT, name) for forest, name in both]
    float32 = onnx.TensorProto.FLOAT
    source = onnx.helper.make_tensor_value_info(INPUT, float32, ["n", len(bundle.feature_names)])
    shapes = {SCORE: ["n"], MARGINS: ["n", 2]}
    targets = [onnx.helper.make_tensor_value_info(name, float32, shape) for name, shape in shapes.items()]
    graph = onnx.helper.make_graph(
        [*nodes, *score_nodes()], "one_node_a_library", [source], targets, score_constants(bundle.meta)
    )
    return serialise(graph)
