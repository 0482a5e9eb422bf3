"""Topics as a table for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Final

from stream.quantity import Duration, Size
from stream.topic_check import TopicState

__all__ = ["topic_table"]

HEADER: Final = ("topic", "partitions", "copies", "in sync", "retention", "largest record")


def topic_table(states: Sequence[TopicState]) -> Iterator[str]:
    """Yield a header and a line for each topic."""
    rows = [HEADER, *map(_row, states)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for row in rows:
        yield "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()


def _row(state: TopicState) -> tuple[str, ...]:
    if state.absent:
        return state.name, state.absent, "", "", "", ""
    kept_ms = state.number("retention.ms", 0)
    hidden = state.config is None
    return (
        state.name,
        str(state.partitions),
        str(state.replicas),
        "?" if hidden else str(state.number("min.insync.replicas", 1)),
        "?" if hidden else "for ever" if kept_ms < 0 else str(Duration(kept_ms)),
        "?" if hidden else _size(state.number("max.message.bytes", 0)),
    )


def _size(number: int) -> str:
    """Return whole units as people write them, or the plain number of bytes (Kafka's default is none of those)."""
    return str(Size(number)) if number % 1024 == 0 else f"{number:,} B"
