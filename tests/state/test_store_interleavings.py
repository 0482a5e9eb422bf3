"""Two writers of one partition in any interleaving, on every store, against a model of a few lines."""

import dataclasses

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.errors import StoreRolledBack
from state.store import Row, Store, Watermark
from store_backends import Backend, new_namespace

USERS = [b"a", b"b", b"c"]

writers = st.integers(0, 1)
versions = st.lists(st.tuples(st.sampled_from(USERS), st.integers(0, 20)), max_size=5)
actions = st.one_of(
    st.tuples(st.just("save"), writers, versions),
    st.tuples(st.just("advance"), writers, st.integers(0, 30)),
    st.tuples(st.just("load"), writers, st.none()),
    st.tuples(st.just("look"), writers, st.none()),
    st.tuples(st.just("begin"), writers, st.integers(0, 10)),
)


@dataclasses.dataclass
class Model:
    """What the store must hold: the highest version of each user, in whose words it came first, and W."""

    watermark: Watermark
    users: dict[bytes, tuple[int, bytes]] = dataclasses.field(default_factory=dict)

    def save(self, rows: list[Row]) -> None:
        for row in rows:
            if row.user not in self.users or row.applied > self.users[row.user][0]:
                self.users[row.user] = (row.applied, row.record)

    def advance(self, offset: int) -> None:
        self.watermark = dataclasses.replace(self.watermark, offset=max(self.watermark.offset, offset))

    def matches(self, store: Store) -> None:
        assert store.watermark(0) == self.watermark
        records, watermark = store.load(0, USERS)
        assert records == [self.users[user][1] if user in self.users else None for user in USERS]
        assert watermark == self.watermark


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(actions, min_size=5, max_size=25))
def test_the_store_is_the_maximum_of_what_was_saved_and_w_never_falls(
    every_backend: Backend, steps: list[tuple[str, int, object]]
) -> None:
    namespace = new_namespace()
    observer, *stores = [every_backend.open(namespace) for _ in range(3)]
    known = [stores[0].begin(0, 0)] * 2
    stores[1].watermark(0)
    model = Model(known[0])
    for number, (action, writer, argument) in enumerate(steps):
        store = stores[writer]
        stale = known[writer].token != model.watermark.token
        try:
            match action:
                case "save":
                    rows = [Row(user, applied, b"%d by step %d" % (applied, number), 0) for user, applied in argument]
                    refused = stale and bool(rows)
                    store.save(0, rows)
                    model.save(rows)
                case "advance":
                    refused = stale
                    known[writer] = store.advance(0, known[writer], argument)
                    model.advance(argument)
                    assert known[writer] == model.watermark
                case "load":
                    refused = stale
                    assert store.load(0, USERS).watermark == model.watermark
                case "look":
                    refused = False
                    known[writer] = store.watermark(0)
                case "begin":
                    refused = False
                    known[writer] = store.begin(0, argument)
                    model = Model(known[writer])
            assert not refused, f"{action} with a former token went through"
        except StoreRolledBack:
            assert refused
        model.matches(observer)
    every_backend.close()
