"""One conformance suite over every store, each on the real thing. The rules are those of ``state.store``."""

import dataclasses
import itertools
import random

import pytest

from state.errors import StoreMismatch, StoreUnavailable
from state.store import Namespace, Row
from store_backends import Backend

UNUSUAL_USERS = [
    b"{a}",
    b"}{",
    b"a:b:c",
    b"a\x00b",
    b"\x00",
    b" ",
    b"\r\n",
    b"*",
    b"%s",
    "käyttäjä-名前-🦊".encode(),
    b"\xff\xfe not UTF-8",
    b"x" * 1024,
    b"x" * 1023 + b"y",
    b"w",
    b"1",
    b"01",
]


def row(user: bytes, applied: int, record: bytes | None = None) -> Row:
    return Row(user, applied, record if record is not None else b"%s at %d" % (user, applied), applied)


def test_what_is_saved_is_loaded_in_the_order_asked_for(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    began = store.begin(0, 7)
    store.save(0, [row(b"a", 10), row(b"b", 11), row(b"c", 12)])
    loaded = store.load(0, [b"c", b"nobody", b"a", b"c"])
    assert loaded.records == [b"c at 12", None, b"a at 10", b"c at 12"]
    assert loaded.watermark == began
    assert store.load(0, []) == ([], began)


def test_of_all_orders_of_saves_the_highest_applied_offset_wins(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    offsets = [0, 255, 256, 1 << 31, (1 << 53) + 1, (1 << 53) + 2, (1 << 63) - 1]
    orders = [*itertools.islice(itertools.permutations(offsets), 0, None, 100), offsets[::-1]]
    users = [b"user-%d" % number for number in range(len(orders))]
    store.begin(0, 0)
    for step in range(len(offsets)):
        store.save(0, [row(user, order[step]) for user, order in zip(users, orders, strict=True)])
        highest = [max(order[: step + 1]) for order in orders]
        assert store.load(0, users).records == [b"%s at %d" % pair for pair in zip(users, highest, strict=True)]


def test_an_equal_applied_offset_changes_nothing(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    store.begin(0, 0)
    store.save(0, [row(b"a", 5, b"first")])
    store.save(0, [row(b"a", 5, b"second")])
    assert store.load(0, [b"a"]).records == [b"first"]


def test_of_two_versions_in_one_save_the_newer_stays(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    store.begin(0, 0)
    store.save(0, [row(b"a", 5), row(b"a", 9), row(b"a", 7)])
    assert store.load(0, [b"a"]).records == [b"a at 9"]


def test_a_late_save_of_a_former_owner_does_no_harm(backend: Backend, namespace: Namespace) -> None:
    former, owner = backend.open(namespace), backend.open(namespace)
    former.begin(0, 0)
    owner.watermark(0)
    owner.save(0, [row(b"a", 20)])
    former.save(0, [row(b"a", 10), row(b"b", 10)])
    assert owner.load(0, [b"a", b"b"]).records == [b"a at 20", b"b at 10"]


def test_records_are_any_bytes_of_any_length(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    store.begin(0, 0)
    records = [b"", b"\x00", bytes(range(256)) * 20, random.Random(1).randbytes(3 << 20), b"\r\n$-1\r\n"]
    rows = [row(b"%d" % number, 1, record) for number, record in enumerate(records)]
    store.save(0, rows)
    assert store.load(0, [each.user for each in rows]).records == records


def test_unusual_user_ids_are_kept_apart(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    store.begin(0, 0)
    store.save(0, [row(user, number) for number, user in enumerate(UNUSUAL_USERS)])
    expected = [b"%s at %d" % (user, number) for number, user in enumerate(UNUSUAL_USERS)]
    assert store.load(0, UNUSUAL_USERS).records == expected
    assert len({store.key(0, user) for user in UNUSUAL_USERS}) == len(UNUSUAL_USERS)


def test_ten_thousand_users_go_in_one_call(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    store.begin(0, 0)
    users = [b"user-%d" % number for number in range(10_000)]
    store.save(0, [row(user, 1) for user in users])
    store.save(0, [row(user, 2) for user in users[::3]])
    asked = random.Random(2).sample([*users, *(b"nobody-%d" % number for number in range(2_000))], 12_000)
    newer = set(users[::3])
    known = set(users)
    expected = [b"%s at %d" % (user, 2 if user in newer else 1) if user in known else None for user in asked]
    assert store.load(0, asked).records == expected


def test_partitions_are_kept_apart(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    for partition in (0, 1, 11):
        store.begin(partition, partition)
        store.save(partition, [row(b"a", 100 + partition)])
    assert [store.load(partition, [b"a"]).records for partition in (0, 1, 11)] == [
        [b"a at 100"],
        [b"a at 101"],
        [b"a at 111"],
    ]
    store.begin(1, 50)
    assert [store.load(partition, [b"a"]).records for partition in (0, 1, 11)] == [[b"a at 100"], [None], [b"a at 111"]]
    assert store.watermark(2) is None


@pytest.mark.parametrize("field", ["cluster_id", "group", "topic", "topic_id", "state_hash"])
def test_namespaces_are_kept_apart(backend: Backend, namespace: Namespace, field: str) -> None:
    other = dataclasses.replace(namespace, **{field: f"{getattr(namespace, field)}-other"})
    first, second = backend.open(namespace), backend.open(other)
    began = first.begin(0, 1)
    first.save(0, [row(b"a", 1)])
    assert second.watermark(0) is None
    second.begin(0, 2)
    assert second.load(0, [b"a"]).records == [None]
    second.save(0, [row(b"a", 9)])
    assert first.load(0, [b"a"]) == ([b"a at 1"], began)


def test_fields_of_a_namespace_do_not_run_into_each_other(namespace: Namespace) -> None:
    one = dataclasses.replace(namespace, cluster_id="ab", group="c")
    other = dataclasses.replace(namespace, cluster_id="a", group="bc")
    assert one.digest != other.digest
    assert one.family != other.family


def test_registered_lists_what_was_begun_for_the_same_topic_name(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    assert store.registered() == []
    store.begin(0, 0)
    store.begin(1, 0)
    relatives = [dataclasses.replace(namespace, topic_id="anew"), dataclasses.replace(namespace, state_hash="other")]
    strangers = [dataclasses.replace(namespace, topic="other"), dataclasses.replace(namespace, cluster_id="other")]
    for each in (*relatives, *strangers):
        backend.open(each).begin(0, 0)
    by_text = sorted([namespace, *relatives], key=repr)
    assert sorted(store.registered(), key=repr) == by_text
    assert sorted(backend.open(relatives[0]).registered(), key=repr) == by_text


def test_added_partitions_are_refused_until_they_are_accepted(backend: Backend, namespace: Namespace) -> None:
    began = backend.open(namespace).begin(0, 3)
    grown = dataclasses.replace(namespace, partitions=namespace.partitions + 2)
    store = backend.open(grown)
    assert store.registered() == [namespace]
    with pytest.raises(StoreMismatch, match="had 4 partitions and it has 6 now"):
        store.begin(5, 0)
    assert store.watermark(5) is None
    store.register()
    assert store.registered() == [grown]
    store.begin(5, 0)
    assert store.watermark(0) == began


def test_a_crash_and_a_new_process_find_everything(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    began = store.begin(0, 10)
    users = [b"user-%d" % number for number in range(3_000)]
    store.save(0, [row(user, 12) for user in users])
    known = store.advance(0, began, 13)
    backend.close()
    backend.crash()
    again = backend.open(namespace)
    assert again.registered() == [namespace]
    assert again.watermark(0) == known
    assert again.load(0, users).records == [b"%s at 12" % user for user in users]


def test_a_closed_store_refuses_every_call(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    known = store.begin(0, 0)
    store.close()
    store.close()
    for call in (
        store.registered,
        store.register,
        lambda: store.watermark(0),
        lambda: store.begin(0, 0),
        lambda: store.load(0, [b"a"]),
        lambda: store.save(0, [row(b"a", 1)]),
        lambda: store.advance(0, known, 1),
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            call()
