"""Workers' metrics read back: one Scrape a worker, a Sample of all at one moment, Rates between two samples."""

import http.client
import math
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from stream.errors import UsageError
from stream.tally import quantile

__all__ = ["Rates", "Sample", "Scrape", "fetch", "metrics_url", "take_sample"]

ANSWER_SECS: Final = 2.0  # a worker on the same network answers within milliseconds
ANSWER_BYTES: Final = 16 << 20  # more than a worker with thousands of partitions has to say


@dataclass(frozen=True, slots=True)
class Scrape:
    """One worker's metrics. series: name -> (labels, value). down: why there are none, empty where there are."""

    url: str
    series: Mapping[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)
    down: str = ""

    def total(self, name: str) -> float:
        """Return the sum over all labels."""
        return sum(value for _, value in self.series.get(name, ()))

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the sums by one label's values."""
        sums: dict[str, float] = {}
        for labels, value in self.series.get(name, ()):
            sums[labels[label]] = sums.get(labels[label], 0.0) + value
        return sums


@dataclass(frozen=True, slots=True)
class Sample:
    """All workers at one moment, in monotonic seconds."""

    at_secs: float
    workers: tuple[Scrape, ...]


@dataclass(frozen=True, slots=True)
class Rates:
    """What workers did between two samples, and how they stand at the second. NaN where nothing can be said.

    events, decisions, dead_letters and the like are increases; latency and commit in seconds; stages: seconds spent in
    each; checkpoint_age_secs: the oldest. worst: the partition with the most lag, and its lag.
    """

    secs: float
    events: float
    replayed: float
    decisions: dict[str, float]
    dead_letters: dict[str, float]
    p50_secs: float
    p99_secs: float
    commit_p50_secs: float
    stages: dict[str, float]
    batch_mean: float
    aborts: float
    lag: float
    worst: tuple[str, float]
    users: float
    size_bytes: float
    unwritten: float
    checkpoint_age_secs: float
    breaker_open: bool
    assigned: int
    live: int
    paused: int
    started_at: float
    models: tuple[tuple[str, str, str], ...]
    down: tuple[Scrape, ...]
    workers: int

    @property
    def events_per_sec(self) -> float:
        """Events scored a second."""
        return self.events / self.secs if self.secs > 0 else math.nan

    @classmethod
    def between(cls, before: Sample | None, after: Sample) -> "Rates":
        """Compare two samples; without `before` everything since the workers' starts counts, and secs is 0.

        A worker that did not answer in one of them adds no increase; one that started anew in between counts from 0.
        """
        pairs = list(_pairs(before, after))
        up = [worker for worker in after.workers if not worker.down]

        def increase(name: str, label: str) -> dict[str, float]:
            return _sum(_increase(old.by(name, label), new.by(name, label)) for old, new in pairs)

        def total(name: str) -> float:
            return sum(_grown(old.total(name), new.total(name)) for old, new in pairs)

        def middle(q: float, name: str) -> float:
            found = {float(le): count for le, count in increase(f"{name}_bucket", "le").items()}
            bounds = sorted(found)
            return quantile(q, bounds, [found[bound] for bound in bounds])

        def standing(name: str) -> float:
            return sum(worker.total(name) for worker in up)

        lags = _sum(worker.by("fraudstream_consumer_lag_records", "partition") for worker in up)
        ages = [a for w in up for a in w.by("fraudstream_checkpoint_age_seconds", "partition").values()]
        batches = total("fraudstream_batch_records_count")
        return cls(
            secs=after.at_secs - before.at_secs if before else 0.0,
            events=total("fraudstream_events_total"),
            replayed=total("fraudstream_replayed_events_total"),
            decisions=increase("fraudstream_decisions_total", "decision"),
            dead_letters={k: n for k, n in increase("fraudstream_dead_letters_total", "reason").items() if n},
            p50_secs=middle(0.5, "fraudstream_decision_latency_seconds"),
            p99_secs=middle(0.99, "fraudstream_decision_latency_seconds"),
            commit_p50_secs=middle(0.5, "fraudstream_commit_seconds"),
            stages=increase("fraudstream_stage_seconds_sum", "stage"),
            batch_mean=total("fraudstream_batch_records_sum") / batches if batches else math.nan,
            aborts=total("fraudstream_aborts_total"),
            lag=sum(lags.values()),
            worst=max(lags.items(), key=lambda item: item[1], default=("", 0.0)),
            users=standing("fraudstream_state_users"),
            size_bytes=standing("fraudstream_state_bytes"),
            unwritten=standing("fraudstream_state_unwritten_users"),
            checkpoint_age_secs=max(ages, default=math.nan),
            breaker_open=standing("fraudstream_store_breaker_open") > 0,
            assigned=int(standing("fraudstream_assigned_partitions")),
            live=int(standing("fraudstream_live_partitions")),
            paused=int(standing("fraudstream_paused_partitions")),
            started_at=min((w.total("fraudstream_start_time_seconds") for w in up), default=math.nan),
            models=_models(up),
            down=tuple(worker for worker in after.workers if worker.down),
            workers=len(after.workers),
        )


def metrics_url(text: str) -> str:
    """Return the URL of a worker's metrics from host:port or a URL; UsageError where it is neither."""
    url = text if "://" in text else f"http://{text}"
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    if scheme not in ("http", "https") or not host:
        raise UsageError(f"{text} is no address of a worker: give host:port or http://host:port, as in metrics.port.")
    return f"{scheme}://{host}/{path or 'metrics'}"


def fetch(url: str) -> str:
    """Return the metrics as text. Workers are asked directly: a proxy for the Internet does not know them."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=ANSWER_SECS) as answer:
        return str(answer.read(ANSWER_BYTES).decode())


def take_sample(urls: Sequence[str], clock: Callable[[], float], fetch: Callable[[str], str] = fetch) -> Sample:
    """Ask all workers at once; one that does not answer is in the sample as down."""

    def ask(url: str) -> Scrape:
        try:
            return Scrape(url, _parse(fetch(url)))
        except urllib.error.HTTPError as error:
            return Scrape(url, down=f"answers {error.code}")
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            return Scrape(url, down=str(getattr(reason, "strerror", None) or reason or type(error).__name__))
        except (ValueError, KeyError):
            return Scrape(url, down="what answers is no worker's metrics")

    with ThreadPoolExecutor(min(16, len(urls)), thread_name_prefix="scrape") as threads:
        workers = tuple(threads.map(ask, urls))
    return Sample(clock(), workers)


def _parse(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    series: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series.setdefault(sample.name, []).append((sample.labels, sample.value))
    if "fraudstream_start_time_seconds" not in series:
        raise ValueError("no worker")
    return series


def _pairs(before: Sample | None, after: Sample) -> Iterator[tuple[Scrape, Scrape]]:
    earlier = {worker.url: worker for worker in before.workers} if before else {}
    for worker in after.workers:
        old = earlier.get(worker.url, Scrape(worker.url, down="not asked")) if before else Scrape(worker.url)
        if not worker.down and not old.down:
            yield old, worker


def _grown(old: float, new: float) -> float:
    """A counter that fell belongs to a process that started anew."""
    return new - old if new >= old else new


def _increase(old: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
    """Compare a whole set, so that a histogram's buckets all count from 0 when one of them fell."""
    anew = any(new.get(key, 0.0) < value for key, value in old.items())
    return {key: value - (0.0 if anew else old.get(key, 0.0)) for key, value in new.items()}


def _sum(parts: Iterator[dict[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for part in parts:
        for key, value in part.items():
            sums[key] = sums.get(key, 0.0) + value
    return sums


def _models(workers: Sequence[Scrape]) -> tuple[tuple[str, str, str], ...]:
    """Return (model, engine, feature set), each once."""
    found = {
        (labels.get("model", ""), labels.get("engine", ""), labels.get("feature_set", ""))
        for worker in workers
        for labels, _ in worker.series.get("fraudstream_model_info", ())
    }
    return tuple(sorted(found))
