"""The drift lab in small, one seed pinned: each injected drift is found in time, and its quiet twin stays silent."""

import pytest

from bench.drift import DAY_MS, QUIET, Plan, learn, run, world
from bench.drift_table import delays

SEED = 11
THURSDAY, SATURDAY = 3, 5  # days since 1970 begin on the one
PLAN = Plan(
    learn=7.0,
    watch=7.5,
    drift_after=2 + 10 / 24,
    shown={"inflation:2": 0.5, "countries:0.5": 0.5, "no-device": 0.5, "no-country": 0.5, "trend:10": 5.0},
    train_rows=20_000,
)

#: By which alert, and within how many hours, each must be found.
BOUNDS = {
    "inflation:2": ("feature_drift", 8),
    "countries:0.5": ("feature_drift", 8),
    "no-device": ("feature_missing", 8),
    "no-country": ("feature_missing", 8),
    "trend:10": ("feature_drift", 120),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    people = world(PLAN, SEED)
    runs = run(PLAN, learn(PLAN, people.learned, tmp_path_factory.mktemp("lab") / "bundle"), people)
    return runs, delays(PLAN, people, runs)


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_drift_is_found_in_time(found, kind):
    alert, hours = BOUNDS[kind]
    delay = found[1][kind, alert]
    assert delay is not None
    assert delay[0] <= hours


def test_the_quiet_twin_raises_nothing_in_a_week_and_its_weekend(found):
    alerts = [(name, subject) for _, name, subject in found[0][QUIET].said if name.endswith(("_drift", "_missing"))]
    assert alerts == []
    first, last = (PLAN.simulation(SEED).start_ms // DAY_MS + day for day in (PLAN.warm + PLAN.learn, PLAN.days))
    saturdays = [day for day in range(int(first), int(last)) if (day + THURSDAY) % 7 == SATURDAY]
    assert len(saturdays) == 1
