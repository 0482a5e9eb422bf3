"""What workers and the joiner write, made up: telemetry over a bundle's reference, and labelled decisions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kafka_topics import Row
from models.bundle import Bundle
from models.histograms import render_histograms
from stream.labelled_record import LabelledDecision, encode_labelled
from stream.telemetry_record import Counts, Sample, Telemetry, encode_telemetry, reference_hash


@dataclass(frozen=True)
class Story:
    """How many seconds are told, from when on, and between which of them a feature drifts. Times in ms, spans in s.

    dearer: by what the sampled values of that feature and the score are multiplied while it drifts.
    """

    start_ms: int
    seconds: int
    drift: range = range(0)
    gap_at: int = -1
    interval: int = 5
    workers: int = 2
    events: int = 200
    rows: int = 2
    dearer: float = 1.0


def telemetry(bundle: Bundle, story: Story, seed: int = 1) -> Iterator[Row]:
    """Records in the order of the topic, stamped in the story's time."""
    rng = np.random.default_rng(seed)
    reference = bundle.histograms
    hashed = reference_hash(render_histograms(reference))
    shares = {name: chances([*one.counts, one.missing]) for name, one in reference.features.items()}
    score = chances([*reference.score.counts, reference.score.missing])
    drifting = bundle.feature_names[0]
    other = chances(np.arange(1, len(shares[drifting]) + 1) ** 3)
    offset = dict.fromkeys(range(story.workers), 0)
    for sequence, second in enumerate(range(0, story.seconds, story.interval)):
        for worker in range(story.workers):
            closed_ms = story.start_ms + 1000 * (second + story.interval) - 100
            if second == story.gap_at and worker == 0:
                offset[worker] += 7
            first, offset[worker] = offset[worker], offset[worker] + story.events
            features = {}
            for name, share in shares.items():
                drifts = name == drifting and second in story.drift
                drawn = rng.multinomial(story.events, other if drifts else share).tolist()
                features[name] = Counts(drawn[:-1], drawn[-1])
            scores = rng.multinomial(story.events, score).tolist()
            rows = rng.lognormal(3, 1.5, (story.rows, len(bundle.feature_names))).astype(np.float32)
            sampled = rng.random(story.rows)
            if second in story.drift:
                rows[:, 0] *= story.dearer
                sampled /= story.dearer
            interval_ms = story.interval * 1000
            record = Telemetry(
                worker=f"w{worker}",
                epoch=story.start_ms,
                sequence=sequence,
                interval=closed_ms // interval_ms,
                interval_ms=interval_ms,
                opened_at_ms=closed_ms - interval_ms,
                closed_at_ms=closed_ms,
                model=bundle.version,
                engine="forest",
                feature_set=bundle.feature_set_hash,
                reference=hashed,
                events=story.events,
                features=features,
                score=Counts(scores[:-1], scores[-1]),
                segments={"DE": {"approve": story.events - 6, "review": 4, "decline": 2}},
                sample=Sample(rows.tolist(), sampled.tolist(), [closed_ms] * story.rows),
                offsets={str(worker): [(first, offset[worker])]},
            )
            yield Row(f"w{worker}".encode(), encode_telemetry(record), timestamp_ms=closed_ms + 50 + worker)


def labelled(model: str, story: Story, count: int, seed: int = 1, worse_from: float = 2.0) -> Iterator[Row]:
    """Labelled decisions evenly over the story; from this share of it on, frauds are mostly approved."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        at_ms = story.start_ms + 1000 * story.seconds * number // count
        fraud = bool(rng.random() < 0.5)
        missed = fraud and rng.random() < (0.9 if number >= worse_from * count else 0.2)
        score = float(np.float32(rng.beta(6, 2) if fraud and not missed else rng.beta(1, 12)))
        decision = "decline" if score > 0.8 else "review" if score > 0.5 else "approve"
        delay_ms = int(rng.exponential(120_000)) + 1_000
        record = LabelledDecision(
            transaction_id=f"t-{number}",
            user_id=f"u-{number % 97}",
            score=score,
            decision=decision,
            model=model,
            segment=("DE", "FR", "missing")[number % 3],
            event_time=at_ms - delay_ms,
            partition=0,
            offset=number,
            is_fraud=fraud,
            label_time=at_ms - 500,
            delay_ms=delay_ms - 500,
        )
        yield Row(record.user_id.encode(), encode_labelled(record), timestamp_ms=at_ms)


def chances(counts) -> np.ndarray:
    counts = np.asarray(counts, np.float64)
    return counts / counts.sum()
