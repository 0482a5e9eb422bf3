"""The drift lab: injected drifts, and what the watch and each statistic say of them; `drift_table.py` prints it.

    day     0 ──────── 8 ─────────── 22 ─────── 25 10:00 ──── 28 ────────────── 34
            windows      reference      the        the drift    (a trend: longer)  end of the quiet run
            fill                        watch      begins
                                        begins

Offline and repeatable: simulated cardholders with days, nights and weekends → features by the worker's window kernel →
scores of a small bundle trained on the reference's days → telemetry as a worker writes it → the monitor's own watch.
Every kind of drift is run on the same people, who pay the same until it begins; the quiet run is those people without
any.
"""

import copy
import multiprocessing
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pyarrow as pa

from models.bundle import open_bundle, write_bundle
from models.drift_statistics import significant
from models.ensemble import load_engine
from models.histograms import render_histograms
from models.policy import OUTCOMES
from models.quality_detectors import Detectors
from models.train import train
from scored_rows import Rows
from state.events import Events, currency_code, hash_field, hash_transaction
from state.features import StateSpec, parse_feature_set
from state.history import observe
from state.windows import Windows
from stream.codec import Decoder
from stream.currencies import EXPONENTS
from stream.files import FileRecord
from stream.mapping import Limits, Mapping
from stream.observer import BatchReport, Scored, ScoredBy
from stream.segment_counts import SegmentCounts
from stream.simulate import Simulation, simulate, transactions
from stream.simulated_drift import KINDS, read_drift
from stream.simulated_labels import EARLY
from stream.telemetry_interval import Interval, new_bins
from stream.telemetry_record import MISSING, reference_hash
from stream.training import sentences_of
from stream.watch import Watch
from stream.watch_sections import DriftSettings, MonitorSettings

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
QUIET = "nothing"
#: For one event in twenty seconds: windows that hold enough of them, and the rest stretched alike.
SMALL_STREAM = DriftSettings(
    window=6 * HOUR_MS,
    every=30 * 60_000,
    persistence=3,
    detector_every=120_000,
    kswin_every=3,
    min_events=400,
    adversarial_every=6 * HOUR_MS,
)
ROUNDS = 15
CHUNK = 8_192
COLUMNS = ("features", "times_ms", "frauds")
FIELDS = StateSpec().fields
KEPT = (("merchant", "_id"), ("country", ""), ("device", "_id"))


#: Windows of a week at most, so that they are filled, and the reference is steady, after eight days.
DECLARED = (
    ("amount", "value", "", ""),
    *((f"count_{window}", "count", "", window) for window in ("5m", "1h", "24h", "7d")),
    *((f"sum_amount_{window}", "sum", "", window) for window in ("1h", "24h")),
    *((f"mean_amount_{window}", "mean", "", window) for window in ("24h", "7d")),
    ("std_amount_7d", "std", "", "7d"),
    ("ratio_amount_7d", "ratio", "", "7d"),
    *((f"distinct_merchant_{window}", "distinct", "merchant_id", window) for window in ("24h", "7d")),
    *((f"distinct_country_{window}", "distinct", "country", window) for window in ("24h", "7d")),
    ("distinct_device_24h", "distinct", "device_id", "24h"),
    *((f"first_seen_{field}_7d", "first_seen", f"{field}{rest}", "7d") for field, rest in KEPT),
    ("seconds_since_last", "seconds_since_last", "", "7d"),
)


def features():
    """Return the lab's feature set."""
    parts = ['name = "lab"']
    for name, aggregate, column, window in DECLARED:
        part = [f'[[feature]]\nname = "{name}"\naggregate = "{aggregate}"\ntext = "{name} is {{value}}"']
        part += [f'field = "{column}"'] if column else []
        part += [f'window = "{window}"'] if window else []
        parts.append("\n".join(part))
    return parse_feature_set("\n\n".join(parts).encode())


@dataclass(frozen=True)
class Plan:
    """How large the lab is; days as drawn above. shown: days that a drift is watched for, by kind."""

    events_a_day: int = 4_000
    users: int = 800
    warm: float = 8.0
    learn: float = 14.0
    watch: float = 12.0
    drift_after: float = 3 + 10 / 24
    shown: dict = field(default_factory=lambda: dict.fromkeys(KINDS, 2.0) | {"trend": 8.5})
    interval_ms: int = 120_000
    sample_rows: int = 8
    train_rows: int = 60_000
    weekend: float = 0.7
    drift: DriftSettings = field(default_factory=lambda: SMALL_STREAM)

    @property
    def days(self):
        return self.warm + self.learn + self.watch

    @property
    def begins(self):
        return self.warm + self.learn + self.drift_after

    def simulation(self, seed, kind=QUIET):
        return Simulation(
            events=round(self.events_a_day * self.days),
            users=self.users,
            merchants=max(50, self.users // 5),
            days=self.days,
            seed=seed,
            weekend=self.weekend,
            drifts=() if kind == QUIET else (replace(read_drift(kind), day=self.begins),),
        )


@dataclass
class Traffic:
    """Columns of events in order: features float32[n, k], times int64[n], labels bool[n], segments [n]."""

    features: np.ndarray
    times_ms: np.ndarray
    frauds: np.ndarray
    segments: list

    def followed(self, other):
        """Return both, one after the other."""
        joined = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in COLUMNS)
        return Traffic(*joined, self.segments + other.segments)

    def since(self, at_ms):
        """Return the part from a time on."""
        first = int(np.searchsorted(self.times_ms, at_ms))
        return Traffic(self.features[first:], self.times_ms[first:], self.frauds[first:], self.segments[first:])


def compute(windows, table, first_offset):
    """Return the traffic of a simulated table, through the kernel of the stream."""
    users = [user.encode() for user in table["user_id"].to_pylist()]
    events = columns(table, first_offset)
    _as_decoded(table.slice(0, 500), events[:500])
    found = [
        observe(windows, users[first : first + CHUNK], events[first : first + CHUNK])[0]
        for first in range(0, len(users), CHUNK)
    ]
    return Traffic(
        np.concatenate(found),
        events.time_ms,
        table["is_fraud"].to_numpy(),
        [country or MISSING for country in table["country"].to_pylist()],
    )


def columns(table, first_offset):
    """Return the table as the decoder's columns, without the way through JSON, which takes most of the time."""
    names = table["currency"].combine_chunks().dictionary_encode()
    which = names.indices.to_numpy()
    scale = np.array([10.0 ** EXPONENTS[name] for name in names.dictionary.to_pylist()])[which]
    codes = np.array([currency_code(name) for name in names.dictionary.to_pylist()], np.uint16)[which]
    hashed = np.empty((table.num_rows, len(FIELDS)), np.uint64)
    for at, name in enumerate(FIELDS):
        values = table[name].combine_chunks().dictionary_encode()
        hashes = np.array([*(hash_field(at, value) for value in values.dictionary.to_pylist()), 0], np.uint64)
        hashed[:, at] = hashes[values.indices.fill_null(len(hashes) - 1).to_numpy()]
    return Events(
        np.array(
            table["event_time"].cast(pa.int64())
        ),  # a copy: the kernel would be compiled anew for what is read-only
        np.arange(first_offset, first_offset + table.num_rows),
        np.fromiter(map(hash_transaction, table["transaction_id"].to_pylist()), np.uint64, table.num_rows),
        np.rint(table["amount"].to_numpy() * scale).astype(np.int64),
        codes,
        hashed,
    )


def _as_decoded(table, events):
    """Compare with what the stream's own decoder makes of the records."""
    (rows,) = transactions(table)
    records = [FileRecord(key, value, int(events.offset[at]), 1 << 60) for at, (key, value) in enumerate(rows)]
    decoded, dead = Decoder(Mapping(), Limits()).decode(0, records)
    assert not dead
    for column in fields(Events):
        assert np.array_equal(getattr(decoded.events, column.name), getattr(events, column.name)), column.name


@dataclass
class World:
    """The days learned from, the quiet days watched, and what comes in their place, by kind of drift."""

    learned: Traffic
    quiet: Traffic
    drifted: dict


def world(plan, seed):
    """Return what one seed's people pay."""
    table = simulate(plan.simulation(seed))
    times = table["event_time"].cast(pa.int64()).to_numpy() - plan.simulation(seed).start_ms
    days = np.array([plan.warm, plan.warm + plan.learn, plan.begins])
    first, watched, begins = np.searchsorted(times, days * DAY_MS).tolist()
    windows = Windows(StateSpec(decoding=Mapping().decoding), features())
    compute(windows, table.slice(0, first), 0)
    learned = compute(windows, table.slice(first, watched - first), first)
    calm = compute(windows, table.slice(watched, begins - watched), watched)
    # The past is the same for all kinds: each goes on in a copy of this process, which takes a moment.
    forked = multiprocessing.get_context("fork")
    children = {}
    for kind in (QUIET, *plan.shown):
        ours, theirs = forked.Pipe(duplex=False)
        child = forked.Process(target=_go_on, args=(plan, seed, kind, windows, begins, theirs))
        child.start()
        theirs.close()  # so that a child that fails is an error here, and no wait for ever
        children[kind] = child, ours
    found = {}
    for kind, (child, ours) in children.items():
        found[kind] = Traffic(*ours.recv())
        child.join()
    quiet = found.pop(QUIET)
    return World(learned, calm.followed(quiet), {kind: calm.followed(traffic) for kind, traffic in found.items()})


def _go_on(plan, seed, kind, windows, begins, pipe):
    table = simulate(plan.simulation(seed, kind))
    since_ms = table["event_time"].cast(pa.int64()).to_numpy() - plan.simulation(seed).start_ms
    end = int(np.searchsorted(since_ms, (plan.begins + plan.shown.get(kind, plan.watch)) * DAY_MS))
    found = compute(windows, table.slice(begins, end - begins), begins)
    pipe.send((found.features, found.times_ms, found.frauds, found.segments))


def learn(plan, learned, directory):
    """Return the bundle trained on the reference's days."""
    declared = features()
    rows = np.arange(0, len(learned.times_ms), max(1, len(learned.times_ms) // plan.train_rows))
    trained = train(
        learned.features[rows],
        learned.frauds[rows].astype(np.int8),
        learned.times_ms[rows],
        feature_names=declared.names,
        seed=1,
        rounds=ROUNDS,
    )
    write_bundle(
        directory,
        trained,
        feature_set=declared.source,
        feature_set_hash=declared.hash,
        sentences=sentences_of(declared),
        lineage={"seed": 1},
        replace=True,
    )
    return open_bundle(directory)


def telemetry(plan, bundle, traffic, scores, sequence=0, offset=0):
    """Yield (record, timestamp) for each interval, by the code that writes a worker's; sequence, offset: the first."""
    by = ScoredBy(
        bundle.version,
        "forest",
        bundle.feature_set_hash,
        bundle.feature_names,
        bundle.histograms,
        reference_hash(render_histograms(bundle.histograms)),
    )
    outcomes = bundle.thresholds.decide(scores)
    bins, segments = new_bins(by), SegmentCounts(50)
    interval = traffic.times_ms // plan.interval_ms
    numbers = np.arange(interval[0], interval[-1] + 1)
    ends = np.searchsorted(interval, numbers, "right").tolist()
    begin = 0
    for place, (number, end) in enumerate(zip(numbers.tolist(), ends, strict=True), sequence):
        opened_ms = number * plan.interval_ms
        counted = Interval(by, bins, segments, opened_ms, plan.sample_rows, str(number))
        if end > begin:
            rows = slice(begin, end)
            scored = Scored(
                by,
                traffic.features[rows],
                scores[rows],
                outcomes[rows],
                OUTCOMES,
                Rows(traffic.segments[rows], traffic.times_ms[rows]),
            )
            report = BatchReport(events=end - begin, latency_ms=np.ones(end - begin), scored=scored)
            counted.add(report, {0: (offset + begin, offset + end)})
        end_ms = opened_ms + plan.interval_ms
        yield (
            counted.close(
                worker="lab",
                epoch=1,
                sequence=place,
                closed_at_ms=end_ms - 1,
                interval_ms=plan.interval_ms,
                dropped=0,
            ),
            end_ms,
        )
        begin = end


@dataclass
class Run:
    """What was said, as (time, detector, subject); `by` what a statistic alone says, or the watch's own alerts."""

    said: list = field(default_factory=list)
    counted: dict = field(default_factory=dict)
    compared: int = 0

    def take(self, watching, drift, record, timestamp_ms):
        """Give the watch a record and note what it and each statistic alone say."""
        for alert in watching.observe(record, timestamp_ms):
            if alert.state == "raised":
                self.said.append((alert.at, alert.signal, alert.subject or alert.segment))
        if timestamp_ms // drift.every == self.compared:
            return
        self.compared = timestamp_ms // drift.every
        shot = watching.snapshot()
        for key, count in shot.totals.detections.items():
            if count > self.counted.get(key, 0):
                self.said.append((timestamp_ms, *key))
        self.counted = dict(shot.totals.detections)
        for model in shot.models.values():
            self._alone(timestamp_ms, {**model.features, "the score": model.score}, drift)

    def _alone(self, at_ms, subjects, drift):
        judged = {name: one for name, one in subjects.items() if one.psi is not None}
        for statistic in ("chi_squared_p", "ks_p"):
            p_values = np.array([getattr(one, statistic) for one in judged.values()])
            found = zip(judged, significant(p_values, drift.false_alarms), strict=True)
            self.said += [(at_ms, statistic, name) for name, sure in found if sure]
        self.said += [(at_ms, "psi", name) for name, one in judged.items() if one.psi >= drift.psi]


def run(plan, bundle, world):
    """Return {kind: Run}; the watch of each drift is the quiet one's at the moment at which it begins."""
    engine = load_engine(bundle, "forest")
    begins_ms = plan.simulation(0).start_ms + round(plan.begins * DAY_MS)
    watching = Watch(plan.drift, MonitorSettings(), lambda _: bundle.histograms)
    found, quiet = {}, Run()
    scores = engine.score(world.quiet.features)
    before = int(np.searchsorted(world.quiet.times_ms, begins_ms))
    for record, timestamp_ms in telemetry(plan, bundle, world.quiet, scores):
        if record.opened_at_ms >= begins_ms and not found:
            for kind, traffic in world.drifted.items():
                after = traffic.since(begins_ms)
                its, theirs = copy.deepcopy(watching), copy.deepcopy(quiet)
                for each, at_ms in telemetry(
                    plan, bundle, after, engine.score(after.features), record.sequence, before
                ):
                    theirs.take(its, plan.drift, each, at_ms)
                theirs.said += by_labels(bundle, engine, traffic)
                found[kind] = theirs
        quiet.take(watching, plan.drift, record, timestamp_ms)
    quiet.said += by_labels(bundle, engine, world.quiet)
    return {QUIET: quiet, **found}


def by_labels(bundle, engine, traffic):
    """Return what the monitor's detectors on errors say, once the labels of analysts come, hours after the payments."""
    rng = np.random.default_rng(1)
    known = np.flatnonzero(rng.random(len(traffic.times_ms)) < EARLY)
    label_ms = traffic.times_ms[known] + (4 * HOUR_MS * rng.lognormal(0, 0.7, len(known))).astype(np.int64)
    approved = bundle.thresholds.decide(engine.score(traffic.features)) == 0
    detectors = Detectors(30 * DAY_MS, 7 * DAY_MS, 30)
    said = []
    for at in np.argsort(label_ms, kind="stable").tolist():
        row, at_ms = int(known[at]), int(label_ms[at])
        if at_ms <= traffic.times_ms[-1]:
            found = detectors.feed(bool(traffic.frauds[row]), bool(approved[row]), at_ms)
            said += [(at_ms, f"labels: {one.detector}", one.sequence) for one in found]
    return said
