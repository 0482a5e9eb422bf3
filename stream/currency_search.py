"""Finds the currency of a decided transaction where it came from: neither its decision nor its features name it."""

from contextlib import closing

from state.events import currency_code
from stream.codec import Decoder
from stream.decision_search import Decided
from stream.errors import StartupError
from stream.settings import Settings
from stream.topic_scan import TopicScan

__all__ = ["find_currency"]


def find_currency(scan: TopicScan, settings: Settings, decided: Decided) -> int:
    """Return the code of the currency that the transaction's amounts were counted in.

    0 where the input topic cannot be read, or no longer holds the transaction: only words depend on it.
    """
    mapping = settings.mapping()
    if mapping.base_currency:
        return currency_code(mapping.base_currency)
    topic, number = settings.topics.transactions, decided.partition
    try:
        if number not in scan.partitions(topic):
            return 0
        with closing(scan.records(topic, {number: decided.offset})) as batches:
            first = next(batches, [])[:1]
    except StartupError:
        return 0
    if not first or first[0].offset() != decided.offset:
        return 0
    decoded, _ = Decoder(mapping, settings.limits()).decode(number, first)
    return int(decoded.events.currency[0]) if decoded.transaction_ids == [decided.transaction_id] else 0
