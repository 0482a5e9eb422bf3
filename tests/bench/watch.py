"""What the watch costs: 16 workers, 24 features; CPU a record, and memory over a simulated day.

    PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/watch.py [HOURS [SECONDS]]

Each worker sends a record every SECONDS (1 live; 4 by default, which costs more a record, for what is done by time is
shared by fewer). Once a rhythm and a window are remembered, after 26 hours, memory must stay where it is. Asserted in
the run: no drift raises nothing, all records count, the share of a core and the memory keep to their bounds. Records
are made once and sent again with other times, so that what is measured is `Watch.observe` alone.
"""

import gc
import sys
import time

import msgspec
import numpy as np
import psutil

from models.histograms import reference, render_histograms
from state.features import default_feature_set
from stream.telemetry_record import Counts, Sample, Telemetry, reference_hash
from stream.watch import Watch
from stream.watch_sections import DriftSettings, MonitorSettings

WORKERS, EVENTS, TEMPLATES = 16, 40, 50
START_MS = 1_700_000_000_000 // 86_400_000 * 86_400_000
BUDGET = 0.12  # of one core
STEADY_HOURS = 27


def templates(rng, names, histograms, digest):
    made = []
    for _ in range(TEMPLATES):
        x = rng.lognormal(size=(EVENTS, len(names))).astype(np.float32)
        scores = rng.beta(1, 9, EVENTS).astype(np.float32)
        columns = {name: histograms.features[name].count(x[:, at]) for at, name in enumerate(names)}
        score = histograms.score.count(scores)
        made.append(
            Telemetry(
                worker="w",
                epoch=START_MS,
                sequence=0,
                interval=0,
                interval_ms=1_000,
                opened_at_ms=0,
                closed_at_ms=0,
                model="m1",
                engine="forest",
                feature_set="f",
                reference=digest,
                events=EVENTS,
                features={name: Counts(column.counts, column.missing) for name, column in columns.items()},
                score=Counts(score.counts, score.missing),
                segments={
                    country: {"approve": 4, "review": 1} for country in ("DE", "FR", "IT", "ES", "GB", "PL", "SE", "US")
                },
                sample=Sample(x[:8].tolist(), scores[:8].tolist(), [0] * 8),
            )
        )
    return made


def main(hours, seconds):
    rng = np.random.default_rng(1)
    names = default_feature_set().names
    histograms = reference(
        rng.lognormal(size=(100_000, len(names))).astype(np.float32), names, rng.beta(1, 9, 50_000).astype(np.float32)
    )
    made = templates(rng, names, histograms, reference_hash(render_histograms(histograms)))
    watch = Watch(DriftSettings(), MonitorSettings(), lambda version: histograms)
    alerts, spent, held = [], 0.0, []
    print(f"{'hour':>5} {'records a second of CPU':>24} {'MiB held':>9}")
    for hour in range(hours):
        hour_spent = 0.0
        for second in range(hour * 3_600, hour * 3_600 + 3_600, seconds):
            end_ms = START_MS + (second + 1) * 1_000
            number = second // seconds
            batch = [
                msgspec.structs.replace(
                    made[(number * 7 + worker) % TEMPLATES],
                    worker=f"w{worker}",
                    sequence=number,
                    interval=end_ms // 1_000 - 1,
                    offsets={str(worker): [(number * EVENTS, number * EVENTS + EVENTS)]},
                )
                for worker in range(WORKERS)
            ]
            began = time.process_time()
            for record in batch:
                alerts += watch.observe(record, end_ms)
            hour_spent += time.process_time() - began
        spent += hour_spent
        gc.collect()
        held.append(resident_mib())
        rate = 3_600 // seconds * WORKERS / hour_spent
        print(f"{hour:>5} {rate:>24,.0f} {held[-1]:>9.1f}", flush=True)
    totals = watch.snapshot().totals
    share = WORKERS * spent / totals.records
    if hours > STEADY_HOURS + 1:
        assert held[-1] < 1.03 * held[STEADY_HOURS], held
    assert alerts == [], alerts
    assert totals.records == hours * 3_600 // seconds * WORKERS
    assert {totals.lost, totals.late, *totals.set_aside.values(), *totals.uncovered.values()} == {0}
    assert share < BUDGET, f"{share:.1%} of a core"
    print(f"{share:.2%} of a core for {WORKERS} records a second; {spent / totals.records * 1e6:.0f} us a record")


def resident_mib():
    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    main(*(int(given) for given in sys.argv[1:]), *(52, 4)[len(sys.argv) - 1 :])
