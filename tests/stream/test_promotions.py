"""Promotions while workers score: nothing lost, nothing doubled, each decision that of the version it names."""

import itertools
import threading
from collections import Counter, defaultdict

import numpy as np
import pytest

from committed import wait_until_committed
from disturbed import crew
from kafka_topics import Row, Topics, wait_until
from line_output import LineOutput
from line_thread import line_settings, threaded_crew
from models.bundle import Bundle, open_bundle
from models.ensemble import load_engine
from models.policy import OUTCOMES
from small_models import other_features, promote, small_model
from state.features import default_feature_set
from state.history import compute
from stream.codec import Decoder
from stream.feature_log import read_feature_log
from stream.settings import load_settings
from traffic import START_MS, traffic

pytestmark = [pytest.mark.kafka]

SEED = 20260401
CHUNK = 500
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[Bundle]:
    """Three versions over the default features and one over others."""
    folder = tmp_path_factory.mktemp("bundles")
    plain = [small_model(folder / str(seed), seed) for seed in range(3)]
    return [*plain, small_model(folder / "other", 9, other_features())]


def unlike_their_version(output: LineOutput, bundles: list[Bundle]) -> list[str]:
    """Say which decisions are not what the version they name decides on the features that were logged."""
    rows = defaultdict(list)
    for place, decision in output.decisions.items():
        rows[decision["model"]].append(place)
    found = []
    for bundle in bundles:
        places = rows.pop(bundle.version, [])
        if not places:
            continue
        vectors = [np.frombuffer(output.features[place][2], np.float32) for place in places]
        wide = [
            place for place, vector in zip(places, vectors, strict=True) if len(vector) != len(bundle.feature_names)
        ]
        if wide:
            found.append(f"{len(wide)} rows of {bundle.version} are not of its features, {wide[0]} first")
            continue
        scores = load_engine(bundle, "forest").score(np.array(vectors))
        outcomes = bundle.thresholds.decide(scores)
        for place, score, outcome in zip(places, scores, outcomes, strict=True):
            decision = output.decisions[place]
            said = (np.float32(decision["score"]), decision["decision"], decision["feature_set"])
            if said != (score, OUTCOMES[outcome], bundle.feature_set_hash):
                found.append(f"{place}: {said}, but {bundle.version} gives {score}, {OUTCOMES[outcome]}")
    return found + [f"{len(places)} decisions name {version}" for version, places in rows.items()]


class Stream(threading.Thread):
    """Produces in chunks until told that enough is enough, and at least so many events."""

    def __init__(self, topics: Topics, source: str, count: int) -> None:
        super().__init__(daemon=True)
        self._topics, self._source, self._count = topics, source, count
        self.enough = threading.Event()
        self.sent: list[tuple[int, int]] = []

    def run(self) -> None:
        events = traffic(10 * self._count + 1_000_000, seed=SEED)
        while len(self.sent) < self._count or not self.enough.is_set():
            chunk = list(itertools.islice(events, CHUNK))
            self.sent += [(r.partition, r.offset) for r in self._topics.produce(self._source, chunk)]
            self.enough.wait(0.1)


@pytest.mark.redis
def test_many_promotions_and_a_kill_in_the_middle_of_one_lose_and_double_nothing(
    topics: Topics, redis, bundles, tmp_path, promotions, promotion_events, capsys
):
    registry = tmp_path / "registry"
    promote(registry, bundles[0])
    settings = {
        "kafka.bootstrap_servers": topics.bootstrap,
        "kafka.session_timeout_ms": 3000,
        "kafka.transaction_timeout_ms": 3000,
        "store.kind": "redis",
        "store.url": redis.url,
        "store.checkpoint_interval_ms": 500,
        "worker.max_batch": 256,
        "model.follow": str(registry),
        "model.poll_interval": "20ms",
        "metrics.enabled": False,
    }
    source = topics.create("transactions")
    stream = Stream(topics, source, promotion_events)
    with crew(topics, source, settings) as workers:
        # One is killed when a model is ready and has not taken over yet, one just when it has.
        for name, point in (("w1", f"swapped:{promotions // 4}"), ("w2", f"prepared:{promotions // 2}")):
            workers.start(name, point, **{"model.cache": str(tmp_path / name)})
        for worker in workers.workers.values():
            worker.wait_for("assigned")
        stream.start()
        killed = 0
        for number in range(1, promotions + 1):
            bundle = bundles[number % len(bundles)]
            share = (number - 1) * promotion_events // promotions
            wait_until(lambda share=share: len(stream.sent) >= share, f"{share} events sent", 120)
            promote(registry, bundle, approved_by=f"approver {number}")
            for name, worker in list(workers.workers.items()):
                worker.wait_until(
                    lambda worker=worker, bundle=bundle: worker.killed or scores_with(worker, bundle),
                    f"the model {bundle.version}",
                )
                if worker.killed:
                    killed += 1
                    workers.start(name, **{"model.cache": str(tmp_path / name)}).wait_for("assigned")
        stream.enough.set()
        stream.join(120)
        assert not stream.is_alive()
        output = workers.finish(timeout_secs=60 + promotion_events / 500)
        swaps = [value for worker in workers.everybody for value in worker.values("swapped")]
        refused = [value for worker in workers.everybody for value in worker.values("swap_refused")]

    by_version = Counter(decision["model"] for decision in output.decisions.values())
    with capsys.disabled():
        print(
            f"\n{len(stream.sent)} events, {promotions} promotions, {len(swaps)} swaps, {killed} killed: {by_version}"
        )
    assert refused == []
    assert killed == 2
    assert len(swaps) >= 2 * promotions - 4
    assert output.repeated == []
    assert sorted(output.decisions.keys() | output.dead_letters.keys()) == sorted(stream.sent)
    assert not output.decisions.keys() & output.dead_letters.keys()
    assert output.features.keys() == output.decisions.keys()
    assert set(by_version) == {bundle.version for bundle in bundles}
    assert unlike_their_version(output, bundles) == []


def scores_with(worker, bundle: Bundle) -> bool:
    """Whether the last swap that a worker told of was to this bundle."""
    swaps = worker.values("swapped")
    return bool(swaps) and swaps[-1][1] == bundle.version


def test_the_comparison_sees_a_decision_of_another_version(bundles):
    x = np.random.default_rng(3).lognormal(3, 1, (4, 24)).astype(np.float32)
    scores = load_engine(bundles[0], "forest").score(x)
    outcomes = bundles[0].thresholds.decide(scores)
    decisions = {
        (0, row): {
            "model": bundles[0].version, "score": float(scores[row]), "decision": OUTCOMES[outcomes[row]],
            "feature_set": bundles[0].feature_set_hash,
        }
        for row in range(4)
    }  # fmt: skip
    output = LineOutput(decisions, {}, {(0, row): ("", 0, x[row].tobytes()) for row in range(4)}, [])
    assert unlike_their_version(output, bundles) == []
    decisions[0, 1]["model"] = bundles[1].version
    decisions[0, 2]["model"] = bundles[3].version
    decisions[0, 3]["model"] = "unheard of"
    assert len(unlike_their_version(output, bundles)) == 3


# Another feature set, in a running worker.


def decoded(topics: Topics, source: str, partition: int, settings: dict) -> tuple[list[bytes], object, list[int]]:
    """Return users, events and offsets of one partition, as the worker decodes them."""
    own = load_settings(None, {}, settings)
    messages = sorted((r for r in topics.read(source) if r.partition == partition), key=lambda r: r.offset)
    found, _ = Decoder(own.mapping(), own.limits()).decode(partition, [Message(r) for r in messages])
    return found.users, found.events, found.events.offset.tolist()


class Message:
    """A record as the client hands it over."""

    def __init__(self, record) -> None:
        self._record = record

    def value(self):
        return self._record.value

    def key(self):
        return self._record.key

    def offset(self):
        return self._record.offset

    def partition(self):
        return self._record.partition

    def timestamp(self):
        return 1, START_MS + 400 * DAY_MS


@pytest.mark.parametrize(
    ("more", "disturb"),
    [({}, "restart"), ({"state.memory_limit_bytes": "64KiB"}, "nothing")],
    ids=["users carried over, and a restart", "users evicted at once"],
)
def test_after_a_change_of_feature_set_features_equal_those_computed_over_the_whole_history(
    topics: Topics, bundles, tmp_path, more, disturb
):
    registry = tmp_path / "registry"
    promote(registry, bundles[0])
    source = topics.create("transactions")
    rows = [Row(key, value, timestamp_ms=START_MS + 400 * DAY_MS) for key, value in traffic(6_000, seed=3, users=300)]
    settings = line_settings(topics.bootstrap) | {
        "store.kind": "sqlite",
        "store.path": str(tmp_path / "state.sqlite"),
        "model.engine": "auto",
        "model.follow": str(registry),
        "model.cache": str(tmp_path / "cache"),
        "model.poll_interval": "20ms",
        **more,
    }
    with threaded_crew(topics, source, settings) as workers:
        worker = workers.here("w1")
        sides = [bundles[3], bundles[1], bundles[3]]
        for part, bundle in enumerate([None, *sides]):
            if bundle is not None:
                promote(registry, bundle)
                worker.wait_for("swapped", part)
            topics.produce(source, rows[part * 1500 : (part + 1) * 1500])
            wait_until_committed(topics, workers.group, source, [worker])
            if disturb == "restart" and part == 1:
                assert worker.stop() == 0
                worker = workers.here("w1")
                worker.wait_for("live", 4)
                promote(registry, bundles[2])
                worker.wait_for("swapped", 1)
        output = workers.finish()

    assert output.repeated == []
    assert len(output.decisions) + len(output.dead_letters) == len(rows)
    assert unlike_their_version(output, bundles) == []
    spec = load_settings(None, {}, settings).state_spec()
    used = set()
    for partition in range(4):
        users, events, offsets = decoded(topics, source, partition, settings)
        offline = {
            features.hash: compute(spec, features, users, events)[0]
            for features in (default_feature_set(), other_features())
        }
        for row, offset in enumerate(offsets):
            _, _, vector = output.features[partition, offset]
            feature_set = output.decisions[partition, offset]["feature_set"]
            used.add(feature_set)
            assert vector == offline[feature_set][row].tobytes(), (partition, offset)
    assert used == {default_feature_set().hash, other_features().hash}
    assert logged_sets(topics, workers.line.features, output) == set()


def logged_sets(topics: Topics, topic: str, output: LineOutput) -> set[tuple[int, int]]:
    """Return the places whose row of the feature log names another feature set than the decision."""
    wrong = set()
    for record in topics.read(topic):
        table = read_feature_log(record.value)
        named = table.schema.metadata[b"feature_set"].decode()
        for place in zip(table.column("partition").to_pylist(), table.column("offset").to_pylist(), strict=True):
            if output.decisions[place]["feature_set"] != named:
                wrong.add(place)
    return wrong


def test_a_worker_whose_registry_is_gone_starts_with_what_it_ran_last(topics: Topics, bundles, tmp_path):
    registry, away = tmp_path / "registry", tmp_path / "away"
    promote(registry, bundles[0])
    source = topics.create("transactions")
    settings = line_settings(topics.bootstrap) | {
        "model.engine": "auto",
        "model.follow": str(registry),
        "model.cache": str(tmp_path / "cache"),
        "model.poll_interval": "20ms",
    }
    with threaded_crew(topics, source, settings) as workers:
        worker = workers.here("w1")
        promote(registry, bundles[1])
        worker.wait_for("swapped")
        named = tmp_path / "cache" / "champion.json"
        worker.wait_until(lambda: bundles[1].version in named.read_text(), "the bundle in the cache")
        assert worker.stop() == 0
        registry.rename(away)
        worker = workers.here("w1")
        topics.produce(source, traffic(500, seed=4))
        wait_until_committed(topics, workers.group, source, [worker])
        assert worker.values("followed")[0][0].startswith("There is no registry directory")
        away.rename(registry)
        promote(registry, bundles[2])
        worker.wait_for("swapped")
        output = workers.finish()
    assert {decision["model"] for decision in output.decisions.values()} == {bundles[1].version}
    assert unlike_their_version(output, [open_bundle(bundles[1].directory)]) == []
