"""Everything a worker wrote, by the source record it came from; two runs are equal when these are."""

from collections import Counter
from dataclasses import dataclass

import orjson

from kafka_topics import Topics
from stream.feature_log import read_feature_log

Place = tuple[int, int]  # source partition and offset


@dataclass(frozen=True)
class LineTopics:
    """The topics of one run; no telemetry without a topic for it."""

    transactions: str
    decisions: str
    dead_letters: str
    features: str
    telemetry: str = ""

    def settings(self) -> dict[str, object]:
        told = {"topics.telemetry": self.telemetry} if self.telemetry else {"telemetry.enabled": False}
        return told | {
            "topics.transactions": self.transactions,
            "topics.decisions": self.decisions,
            "topics.dead_letters": self.dead_letters,
            "topics.features": self.features,
        }


@dataclass
class LineOutput:
    """What was read committed from the output topics; `repeated` holds places written more than once."""

    decisions: dict[Place, dict]
    dead_letters: dict[Place, tuple]
    features: dict[Place, tuple]
    repeated: list[tuple[str, Place]]

    def differences(self, other: "LineOutput") -> list[str]:
        """Say what differs; everything must be equal but scored_at."""
        found = [f"repeated: {what} of {place}" for what, place in (*self.repeated, *other.repeated)]
        for name in ("decisions", "dead_letters", "features"):
            mine, theirs = getattr(self, name), getattr(other, name)
            found += [f"{name} of {place} is missing" for place in sorted(theirs.keys() - mine.keys())[:5]]
            found += [f"{name} of {place} is too much" for place in sorted(mine.keys() - theirs.keys())[:5]]
            unequal = [place for place in sorted(mine.keys() & theirs.keys()) if mine[place] != theirs[place]]
            found += [f"{name} of {place} is {mine[place]}, not {theirs[place]}" for place in unequal[:5]]
            if unequal:
                found.append(f"{len(unequal)} {name} differ")
        return found


def create_line(topics: Topics, partitions: int = 4, source: str | None = None) -> LineTopics:
    """Create the topics of one run; `source` reads the transactions of another."""
    return LineTopics(
        source or topics.create("transactions", partitions),
        topics.create("decisions", partitions),
        topics.create("dlq", partitions, {"max.message.bytes": "2000000"}),
        topics.create("features", partitions),
        topics.create("telemetry", 1),
    )


def read_line(topics: Topics, line: LineTopics, *, read_committed: bool = True) -> LineOutput:
    """Read everything a run wrote."""
    repeated: list[tuple[str, Place]] = []
    decisions: dict[Place, dict] = {}
    for record in topics.read(line.decisions, read_committed=read_committed):
        decision = orjson.loads(record.value)
        place = decision["partition"], decision["offset"]
        assert record.partition == place[0], "a decision is on its transaction's partition number"
        assert record.key == decision["user_id"].encode()
        decision.pop("scored_at")
        if place in decisions:
            repeated.append(("decision", place))
        decisions[place] = decision
    dead_letters: dict[Place, tuple] = {}
    for record in topics.read(line.dead_letters, read_committed=read_committed):
        headers = dict(record.headers)
        place = int(headers["source.partition"]), int(headers["source.offset"])
        if place in dead_letters:
            repeated.append(("dead letter", place))
        dead_letters[place] = (record.key, record.value, record.headers)
    features, counts = {}, Counter()
    for record in topics.read(line.features, read_committed=read_committed):
        table = read_feature_log(record.value)
        columns = (table.column(name).to_pylist() for name in ("transaction_id", "partition", "offset", "event_time"))
        vectors = table.column("features").combine_chunks().values.to_numpy(zero_copy_only=False)
        rows = vectors.reshape(table.num_rows, -1)
        for row, (transaction_id, partition, offset, event_time) in enumerate(zip(*columns, strict=True)):
            counts[partition, offset] += 1
            features[partition, offset] = (transaction_id, event_time, rows[row].tobytes())
    repeated += [("feature row", place) for place, count in counts.items() if count > 1]
    return LineOutput(decisions, dead_letters, features, repeated)
