"""How soon each detector finds an injected drift, and what it says of quiet days: the drift lab as a table.

PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/drift_table.py [--week] [SEED …]

With --week a week is in memory (drift.longer_rhythm = "7d"): the watch goes on for 19 days, and the drift begins on the
second Friday of it.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from bench.drift import DAY_MS, HOUR_MS, QUIET, SMALL_STREAM, Plan, learn, run, world

SHOWN_ON = (501, 502, 503)
WEEK = Plan(
    watch=19.0,
    drift_after=10 + 10 / 24,
    drift=msgspec.structs.replace(SMALL_STREAM, longer_rhythm=7 * DAY_MS),
)

#: What is printed: the watch's own alerts first, then what each statistic alone would say, without the watch's rules.
ALERTS = (
    "feature_drift",
    "feature_missing",
    "score_drift",
    "detector_drift",
    "adversarial_drift",
    "decision_mix_drift",
    "labels: ddm",
    "labels: adwin",
)
ALONE = ("psi", "chi_squared_p", "ks_p", "adwin", "page_hinkley", "kswin")


def delays(plan, world, found):
    """Return {(kind, detector): hours and events until it was first found, None where it was not}, false alarms too.

    A detector that was saying so of that very subject within the day before is not counted as finding anything.
    """
    begins_ms = plan.simulation(0).start_ms + round(plan.begins * DAY_MS)
    table = {}
    for kind, traffic in world.drifted.items():
        for detector in (*ALERTS, *ALONE):
            usual = {subject for at, name, subject in found[QUIET].said if name == detector}
            times = [
                at
                for at, name, subject in found[kind].said
                if name == detector and at > begins_ms and subject not in usual
            ]
            if not times:
                table[kind, detector] = None
                continue
            events = int(np.searchsorted(traffic.times_ms, min(times))) - int(
                np.searchsorted(traffic.times_ms, begins_ms)
            )
            table[kind, detector] = (min(times) - begins_ms) / HOUR_MS, events
    return table


def false_alarms(found):
    """Return {detector: alerts of the quiet run}; of a statistic alone, the hours in which it said so of anything."""
    said = {}
    for detector in (*ALERTS, *ALONE):
        times = [at for at, name, _ in found[QUIET].said if name == detector]
        alone = detector in ALONE and detector not in ("adwin", "page_hinkley", "kswin")
        said[detector] = len({at // HOUR_MS for at in times}) if alone else len(times)
    return said


def lab(plan, seed, tell=lambda _: None):
    """Return (delays, false alarms) of one seed."""
    started = time.monotonic()
    found = world(plan, seed)
    tell(f"seed {seed}: {len(found.learned.times_ms):,} events learned from, {time.monotonic() - started:.0f} s")
    with tempfile.TemporaryDirectory() as scratch:
        runs = run(plan, learn(plan, found.learned, Path(scratch, "bundle")), found)
    tell(f"seed {seed}: watched, {time.monotonic() - started:.0f} s")
    return delays(plan, found, runs), false_alarms(runs)


def rows(plan, results):
    """Yield the printed table: a line a detector, a column a kind."""
    kinds = tuple(plan.shown)
    yield ("detector", *kinds, f"false alarms in {plan.watch:g} quiet days")
    for detector in (*ALERTS, *ALONE):
        cells = []
        for kind in kinds:
            hits = [table[kind, detector] for table, _ in results]
            times = sorted(hit for hit in hits if hit is not None)
            cells.append(_cell(times, len(hits)))
        yield (detector, *cells, " ".join(str(quiet[detector]) for _, quiet in results))


def _cell(times, seeds):
    if not times:
        return "–"
    hours, events = times[len(times) // 2]
    found = "" if len(times) == seeds else f" ({len(times)} of {seeds})"
    return f"{hours:.1f} h, {events:,}{found}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="*", default=SHOWN_ON)
    parser.add_argument("--week", action="store_true", help="let a week be in memory before the drift begins")
    given = parser.parse_args()
    plan = WEEK if given.week else Plan()
    results = [lab(plan, seed, lambda text: print(text, file=sys.stderr)) for seed in given.seeds]
    for row in rows(plan, results):
        print("| " + " | ".join(row) + " |")
