"""What a demonstration ends with."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from stream.dashboard import secs_text
from stream.demo_cast import Cast
from stream.scrape import Rates

__all__ = ["summary"]

OUTCOMES: Final = ("approve", "review", "decline")
WIDTH: Final = 80
LABEL: Final = 12

CLOSING: Final = """\
This broker is for trying out: it lives in the demo's process, forgets all with
it and cannot deliver exactly once. For a real one write to fraudstream.toml:

  [kafka]
  bootstrap_servers = "localhost:9092"   # your broker
  delivery = "exactly_once"
  [store]
  kind = "sqlite"                        # or "redis", for more than one worker
  [model]
  bundle = "{bundle}"

then: fraudstream topics create; fraudstream doctor; fraudstream worker"""


def summary(cast: Cast, totals: Rates, bundle: Path) -> Iterator[str]:
    """Yield the lines, of at most 80 columns. totals: what the worker's metrics say of the whole run."""
    traffic, outcomes = cast.traffic, cast.decisions.outcomes
    failed = f", {traffic.published.failed:,} more could not be published" if traffic.published.failed else ""
    yield from _told(
        "published", f"{traffic.good:,} transactions and {traffic.bad} bad records in {traffic.secs:.0f} s{failed}"
    )
    mix = Counter(outcomes.values())
    shares = (f"{mix[name]:,} {name} ({mix[name] / max(1, len(outcomes)):.1%})" for name in OUTCOMES)
    yield from _told("decided", f"{len(outcomes):,}: {', '.join(shares)}")
    yield from _told("declines", _quality(outcomes, traffic.frauds))
    p50, p99 = secs_text(totals.p50_secs), secs_text(totals.p99_secs)
    yield from _told("latency", f"p50 {p50}, p99 {p99}, from broker to decision")
    reasons = ", ".join(f"{count:,.0f} {reason}" for reason, count in sorted(totals.dead_letters.items()))
    yield from _told("bad input", f"{sum(totals.dead_letters.values()):,.0f} dead letters: {reasons or 'none'}")
    yield ""
    yield CLOSING.format(bundle=bundle)


def _told(label: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text, WIDTH - 1, initial_indent=f"{label:<{LABEL}}", subsequent_indent=" " * LABEL, break_on_hyphens=False
    )


def _quality(outcomes: Mapping[str, str], frauds: set[str]) -> str:
    """Compare with what the simulation knows."""
    held = {name for name, outcome in outcomes.items() if outcome != "approve"}
    declined = {name for name, outcome in outcomes.items() if outcome == "decline"}
    there = frauds & outcomes.keys()
    if not declined or not there:
        return "too few to judge"
    return (
        f"precision {len(declined & there) / len(declined):.0%}, recall {len(declined & there) / len(there):.0%} of "
        f"{len(there):,} frauds ({len(held & there) / len(there):.0%} with the reviewed)"
    )
