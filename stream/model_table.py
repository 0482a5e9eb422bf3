"""Versions, gates and comparisons as text for a terminal."""

import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from models.gate import Gate, shown
from models.manifest import OUT_OF_FOLD
from stream.registry import HOLDOUT_PAYMENTS, Version

__all__ = ["compared", "details", "gate_table", "version_table"]

#: The metric that a list shows, of all that a version has.
HEADLINE: Final = f"metric.{OUT_OF_FOLD}average_precision"
HEADER: Final = ("version", "no.", "registered", "aliases", "precision", "gates", "approved by")
#: Tags that are equal where two versions' figures are of the same payments.
SAME_DAYS: Final = ("lineage.data", HOLDOUT_PAYMENTS)
PREFIXES: Final = ("metric.", "lineage.")
HASH_DIGITS: Final = 16
LONGEST: Final = 100


def version_table(versions: Sequence[Version]) -> Iterator[str]:
    """Yield a header and a line for each version."""
    yield from _aligned([HEADER, *map(_row, versions)])


def _row(version: Version) -> tuple[str, ...]:
    precision = version.tags.get(HEADLINE)
    return (
        version.name,
        str(version.number),
        _when(version.created_ms),
        ", ".join(version.aliases),
        shown(float(precision)) if precision else "",
        version.tags.get("gates.verdict", "not run"),
        version.tags.get("approved_by", ""),
    )


def gate_table(gates: Sequence[Gate]) -> Iterator[str]:
    """Yield a line for each gate; its note, if it has one, below it."""
    rows = [("gate", "value", "bound", "verdict")]
    rows += [(gate.name, gate.shown, gate.bound, gate.verdict) for gate in gates]
    lines = _aligned(rows, right=(1,))
    yield next(lines)
    for gate, line in zip(gates, lines, strict=True):
        yield line
        if gate.note:
            yield f"    {gate.note}"


def details(version: Version, path: str) -> Iterator[str]:
    """Yield everything that the registry says of a version."""
    tags = version.tags
    rows = [
        ("version", f"{version.name} (number {version.number})"),
        ("aliases", ", ".join(version.aliases) or "none"),
        ("registered", _when(version.created_ms)),
        ("bundle", path),
    ]
    named = {"manifest_sha256": "manifest", "holdout_sha256": "holdout", "parameters_sha256": "parameters"}
    rows += [(named[key], f"SHA-256 {tags[key][:HASH_DIGITS]}…") for key in named if key in tags]
    plain = ("feature_set", "thresholds", "parent", "approved_by", "unjudged_accepted_by", "champion.replaced")
    rows += [(key.replace("_", " "), tags[key]) for key in plain if tags.get(key)]
    if "promoted_at" in tags:
        rows.append(("promoted", _when(int(tags["promoted_at"]))))
    rows += [(key, _short(tags[key])) for key in sorted(tags) if key.startswith(PREFIXES)]
    yield from _aligned(rows)
    gates = stored_gates(version)
    if gates:
        yield ""
        yield f"gates {tags.get('gates.verdict', '')}, {_when(int(tags.get('gates.at', '0')))}"
        yield from gate_table(gates)


def compared(one: Version, other: Version) -> Iterator[str]:
    """Yield the two versions' metrics and gate figures side by side; a figure that one lacks is a dash.

    Figures of different days do not compare two versions; a last line then says so.
    """
    rows: list[tuple[str, ...]] = [("", one.name, other.name)]
    rows += [("aliases", ", ".join(one.aliases) or "—", ", ".join(other.aliases) or "—")]
    both = sorted({key for version in (one, other) for key in version.tags if key.startswith("metric.")})
    for key in both:
        rows.append((key.removeprefix("metric."), *(_metric(version, key) for version in (one, other))))
    rows.append(("thresholds", *(version.tags.get("thresholds", "—") for version in (one, other))))
    gates = [{gate.name: gate for gate in stored_gates(version)} for version in (one, other)]
    for name in dict.fromkeys([*gates[0], *gates[1]]):
        rows.append((f"gate: {name}", *(_figure(table.get(name)) for table in gates)))
    yield from _aligned(rows, right=(1, 2))
    if any(one.tags.get(tag) != other.tags.get(tag) for tag in SAME_DAYS):
        yield (
            "Note: Each version's figures are of its own days, its metrics of its folds and its gates of its holdout; "
            "what compares the two are the gates “less the champion's”, or fraudstream evaluate on the same file."
        )


def stored_gates(version: Version) -> list[Gate]:
    """Return the gate table that was kept with a version, empty where none was run."""
    return msgspec.json.decode(version.tags.get("gates", "[]"), type=list[Gate])


def _metric(version: Version, key: str) -> str:
    return shown(float(version.tags[key])) if key in version.tags else "—"


def _figure(gate: Gate | None) -> str:
    if gate is None:
        return "—"
    return gate.shown if gate.passed else f"{gate.shown} {gate.verdict}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _when(epoch_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(epoch_ms / 1000))


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, range(len(row)), strict=True)
        yield "  ".join(c.rjust(width) if place in right else c.ljust(width) for c, width, place in cells).rstrip()
