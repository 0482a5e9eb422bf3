"""What the tests of the registry share: feature sets, wide bounds, what is on record, another holdout."""

from dataclasses import replace
from pathlib import Path

import msgspec

from models.gate import Bounds
from models.holdout import read_holdout, write_holdout
from stream.registry_directory import AUDIT, Entry

SMALLER = b"""
name = "smaller"
[[feature]]
name = "amount"
aggregate = "value"
text = "{value:.0f}"
[[feature]]
name = "payments"
aggregate = "count"
window = "1h"
text = "{value:.0f}"
[[feature]]
name = "seconds"
aggregate = "seconds_since_last"
window = "30d"
text = "{value:.0f}"
[[feature]]
name = "new_device"
aggregate = "first_seen"
field = "device_id"
window = "30d"
text = "{value:.0f}"
[[feature]]
name = "ratio"
aggregate = "ratio"
window = "30d"
text = "{value:.0f}"
"""
OTHER = SMALLER.replace(b'"1h"', b'"2h"')

# What makes a model of 15 trees good is not the question here; every gate has tests of its own.
WIDE = Bounds(
    max_precision_loss=1,
    max_recall_loss=1,
    max_brier_ratio=100,
    min_slope=1e-6,
    max_slope=1e6,
    min_score_ratio=1e-6,
    max_score_ratio=1e6,
    max_decline_rate=1,
    min_decline_precision=0,
    max_honest_held_gain=1,
    max_honest_declined_gain=1,
    # Some twenty honest payments are held here.
    min_segment_honest=1,
    min_missing_share=0,
    min_noise_share=0,
    max_false_positive_ratio=1e6,
    max_amount_false_positive_ratio=1e6,
)


def aliases(office):
    return {alias: one.name for one in office.registry.versions() for alias in one.aliases}


def audit(directory):
    """Return every line of the audit file, oldest first."""
    return [msgspec.json.decode(line, type=Entry) for line in Path(directory, AUDIT).read_bytes().splitlines()]


def actions(office):
    return [(entry.action, entry.version, entry.by) for entry in audit(office.versions.directory)]


def shifted(path, to, days):
    """Write a holdout again, so many days earlier."""
    held = read_holdout(path)
    write_holdout(to, replace(held, times_ms=held.times_ms - round(days * 86_400_000)))
    return to
