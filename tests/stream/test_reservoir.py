"""The sample is uniform over everything seen, in whatever batches it came, and the same for the same seed."""

import random
from collections import Counter

import pytest
from scipy.stats import chisquare

from stream.reservoir import Reservoir


def sample(seen, size, seed, batches=None):
    found = Reservoir(size, seed)
    at = 0
    for count in batches or [seen]:
        found.add(count, lambda i, first=at: first + i)
        at += count
    assert at == seen
    return found.items


@pytest.mark.parametrize(("seen", "size"), [(40, 8), (9, 8), (200, 1), (60, 30)])
def test_every_item_is_kept_equally_often(seen, size):
    rounds = 4_000
    kept = Counter(item for seed in range(rounds) for item in sample(seen, size, f"w/{seed}/0"))
    counts = [kept[item] for item in range(seen)]
    assert sum(counts) == rounds * size
    # Items of one sample exclude each other, so the statistic is smaller than chi-squared, by this factor.
    scaled = chisquare(counts).statistic * (seen - 1) / (seen - size)
    assert 0.5 * (seen - 1) < scaled < 1.6 * (seen - 1) if seen > size + 1 else scaled < 30


def test_the_sample_depends_on_the_seed_and_not_on_the_batches():
    rng = random.Random(5)
    whole = sample(10_000, 8, "worker/1/2")
    for _ in range(20):
        cuts = sorted(rng.randrange(10_001) for _ in range(rng.randrange(1, 40)))
        batches = [high - low for low, high in zip([0, *cuts], [*cuts, 10_000], strict=True)]
        assert sample(10_000, 8, "worker/1/2", batches) == whole
    assert sample(10_000, 8, "worker/1/3") != whole
    assert whole == sorted(whole)
    assert len(set(whole)) == 8


@pytest.mark.parametrize(("seen", "size"), [(0, 8), (3, 8), (8, 8), (5, 0)])
def test_where_fewer_are_seen_than_kept_all_are_kept(seen, size):
    assert sample(seen, size, "x") == list(range(min(seen, size)))


def test_only_what_is_kept_is_looked_at():
    looked = []
    found = Reservoir(8, "x")
    for _ in range(1_000):
        found.add(1_000, looked.append)
    assert 8 <= len(looked) < 8 * 40  # 8 (1 + ln(1,000,000 / 8)), about 100
