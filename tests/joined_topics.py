"""The joiner's topics on a real broker, filled with decisions and labels, and what was written from them."""

import random
from dataclasses import dataclass

from kafka_topics import Topics, wait_until
from labels_and_decisions import DAY_MS, decision, label, oracle

START_MS = 1_767_225_600_000
PARTITIONS = 3


@dataclass
class JoinedTopics:
    """decisions, labels, labelled and dead letters of one test, under a monitor.group of their own."""

    topics: Topics
    decisions: str
    labels: str
    labelled: str
    dead_letters: str

    @classmethod
    def create(cls, topics: Topics) -> "JoinedTopics":
        dead_letters = topics.create("dlq", 1, {"max.message.bytes": "1200000"})
        named = (topics.create("decisions", PARTITIONS), topics.create("labels", PARTITIONS))
        return cls(topics, *named, topics.create("labelled", 1), dead_letters)

    def settings(self, folder, **more: object) -> dict[str, object]:
        return {
            "kafka.bootstrap_servers": self.topics.bootstrap,
            "kafka.transaction_timeout_ms": 3_000,
            "monitor.group": f"monitor-{self.labelled}",
            "topics.decisions": self.decisions,
            "topics.labels": self.labels,
            "topics.labelled": self.labelled,
            "topics.dead_letters": self.dead_letters,
            "labels.index": str(folder / "labels.sqlite"),
            **more,
        }

    def written(self) -> list[bytes]:
        """Return the committed values of `labelled`, sorted."""
        return sorted(record.value for record in self.topics.read(self.labelled))

    def wait_for(self, expected: list[bytes], joiner, timeout_secs: float = 60) -> None:
        """Wait until as many records are written as are expected."""
        end = len(expected)
        joiner.wait_until(
            lambda: sum(sum(told[:2]) for told in joiner.values("labelled")) >= end, f"{end} joined", timeout_secs
        )

    def produce(self, decisions: list[tuple[bytes, bytes]], labels: list[tuple[bytes, bytes]]) -> None:
        """Write both topics, each in its order, in turns."""
        count = max(len(decisions), len(labels), 1)
        step = max(1_000, count // 10)
        for at in range(0, count, step):
            self.topics.produce(self.decisions, decisions[at : at + step])
            self.topics.produce(self.labels, labels[at : at + step])


@dataclass
class Made:
    """Rows (key, value) of both topics and the values of `labelled` that they give."""

    decisions: list[tuple[bytes, bytes]]
    labels: list[tuple[bytes, bytes]]
    expected: list[bytes]


def make(count: int, seed: int = 1, users: int = 200, labelled: float = 0.8) -> Made:
    """Make decisions over 40 days, repeats among them, and labels: early, late, repeated, contradicting, of nobody.

    labelled: the share of decisions that get any; 1.5 each of those.
    """
    rng = random.Random(seed)
    decisions, labels = [], []
    for n in range(count):
        user, transaction = f"u-{rng.randrange(users)}", f"t-{n}"
        at_ms = START_MS + n * 40 * DAY_MS // count
        score = round(rng.random(), 3)
        outcome = "approve" if score < 0.8 else "decline"
        value = decision(user, transaction, score=score, event_time=at_ms, offset=n, outcome=outcome)
        decisions.append((user.encode(), value))
        if rng.random() < 0.02:
            decisions.append(
                (user.encode(), decision(user, transaction, event_time=at_ms, offset=n, scored_at=at_ms + 99))
            )
        is_fraud = rng.random() < score
        ways = [[is_fraud], [is_fraud], [is_fraud] * 2, [is_fraud, not is_fraud]]
        for told in rng.choice(ways) if rng.random() < labelled else ():
            known_ms = at_ms + rng.randrange(130 * DAY_MS)
            labels += [(user.encode(), label(user, transaction, told, known_ms))]
        if rng.random() < 0.025 * labelled:
            labels.append((b"nobody", label("nobody", transaction, True, at_ms)))
    # Labels come in their own time, far from their decisions; each user's keep an order of their own.
    shift = min(count // 3, len(labels))
    labels = labels[shift:] + labels[:shift]
    return Made(decisions, labels, oracle([value for _, value in decisions], [value for _, value in labels]))


def same_written(joined: JoinedTopics, expected: list[bytes]) -> None:
    """Wait until `labelled` holds what is expected, and nothing else."""
    wait_until(lambda: len(joined.written()) >= len(expected), f"{len(expected)} records are written")
    assert joined.written() == expected
