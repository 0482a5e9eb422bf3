"""What a sample of records says of those who write them: whether they are transactions, keyed by user, by murmur2."""

from collections import Counter
from collections.abc import Iterator, Sequence

from confluent_kafka import Message

from stream.check import Found, fail, ok, skip, warn
from stream.codec import Decoder
from stream.mapping import Limits, Mapping
from stream.murmur2 import KeySample, judge_partitioner

__all__ = ["check_keys", "check_partitioner", "check_records"]

REASONS = 3


def check_records(sample: Sequence[Message], mapping: Mapping, limits: Limits) -> Iterator[Found]:
    """Read them as the worker would; a key that is not the user id is the next check's business."""
    letters = Decoder(mapping, limits).decode(0, sample)[1]
    bad = Counter(f"{letter.error} {letter.field}".rstrip() for letter in letters if letter.error != "key_mismatch")
    if not bad:
        yield ok(f"the newest {len(sample):,} are transactions")
        return
    why = ", ".join(f"{number:,} {reason}" for reason, number in bad.most_common(REASONS))
    found = fail if bad.total() == len(sample) else warn
    yield found(
        f"{bad.total():,} of the newest {len(sample):,} are no transactions and become dead letters ({why}): mend the "
        f"producer, or name its fields under codec.fields"
    )


def check_keys(sample: Sequence[Message], mapping: Mapping, limits: Limits) -> Iterator[Found]:
    """Compare each transaction's key with its user id."""
    letters = Decoder(mapping, limits).decode(0, sample)[1]
    wrong = [letter.message for letter in letters if letter.error == "key_mismatch"]
    judged = len(sample) - len(letters) + len(wrong)
    if not judged:
        yield skip("no transactions to judge them by")
        return
    if not wrong:
        yield ok(f"the newest {judged:,} transactions are keyed by user")
        return
    none = sum(message.key() is None for message in wrong)
    without = f" ({none:,} have none)" if none else ""
    yield fail(
        f"{wrong_of(len(wrong), judged)} a key that is not the user id{without} and become dead letters: key by user "
        f"in the producer, correct codec.fields.user_id, or copy the topic with `fraudstream rekey`"
    )


def wrong_of(wrong: int, judged: int) -> str:
    """Return "all 500 newest transactions have" or "3 of the newest 500 transactions have"."""
    if wrong == judged:
        return f"all of the newest {judged:,} transactions have"
    return f"{wrong:,} of the newest {judged:,} transactions have"


def check_partitioner(sample: Sequence[Message], partitions: int) -> Iterator[Found]:
    """Say which partitioner placed the keys; whatever it is, all of a user's records must be on one partition."""
    keys = (KeySample(record.key(), record.partition() or 0) for record in sample)
    verdict = judge_partitioner(keys, partitions)
    if verdict.scattered:
        yield fail(
            f"{verdict.scattered:,} of {verdict.keys:,} keys are on more than one partition, so no worker sees all of "
            f"these users' payments: give every producer the same partitioner (murmur2_random), then copy the topic "
            f"with `fraudstream rekey`"
        )
    elif verdict.name == "murmur2":
        yield ok(f"murmur2, like Java's producer ({verdict.keys:,} keys seen)")
    elif verdict.name == "crc32":
        yield warn(
            f"CRC32, librdkafka's default ({verdict.keys:,} keys seen): right alone, but Java and `fraudstream "
            f"publish` put the same users elsewhere; set partitioner=murmur2_random before you mix them"
        )
    elif verdict.name == "unknown":
        yield skip(f"{verdict.keys:,} keys on {partitions} partitions are too few to tell")
    else:
        yield warn(
            f"neither murmur2 nor CRC32 of the key ({verdict.keys:,} keys seen): right as long as each user stays on "
            f"one partition, but `fraudstream publish` would put the same users elsewhere"
        )
