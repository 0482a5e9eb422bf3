"""Everything at once that can go wrong around two workers, in an order drawn from a seed.

A step sends its share of the input, disturbs one thing, sees that it was disturbed, and waits until work goes on. All
the while workers kill themselves at named points or are killed at any moment, and whoever has ended is started again,
as a supervisor does.

All that is drawn is drawn from the seed and a purpose, so that it does not depend on who was how fast.
"""

import random
import re
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from disturbed import POINTS, Crew
from kafka_server import KafkaServer
from redis_server import RedisServer
from tcp_proxy import TcpProxy
from worker_process import WorkerProcess

NAMES = ("w1", "dynamic-2")
GUEST = "dynamic-guest"
PROGRESS_SECS = 120.0
OLD_SECS = 10.0  # by then a worker can be asked where it stands
AT_ANY_MOMENT = "random"
WAYS = (*POINTS, AT_ANY_MOMENT)  # to die
GUESTS_TRIED = 5  # until one of them is handed partitions
MORE = 500  # records a time, for deaths that are still to come when all shares are sent
MORE_TIMES = 60
MOST_PROMOTIONS = 9

#: What a worker may end with by itself in a storm, because whatever runs it starts it again: another has its place, the
#: broker or the store cannot be reached at the start or for too long.
MAY_END = re.compile(
    r"^(?:stream|state)\.errors\.("
    r"ProducerFenced|ConsumerFenced|BrokerSilent|BatchAborted|StartupError|StoreUnavailable)"
    r"(?!.*store\.recovery)",
    re.MULTILINE,
)

#: What workers tell of what a storm did to them; each is summed up over all of them.
TOLD = ("lost", "aborted", "store_failed", "recovering", "swapped", "loaded", "evicted")


@dataclass(frozen=True)
class Weather:
    """How much of what; the names in counts are those of Storm's methods."""

    kills: int
    counts: Mapping[str, int]
    rounds: int  # guests that come and go in each of `guests_came_and_went`
    round_secs: float  # a round takes so long, or until its guest is handed partitions
    insists: bool = False  # on a model exchanged by a worker that goes on; whoever dies instead starts with it


@dataclass
class Death:
    """How and when a worker is to die: at the count-th time at a point, or so long after a commit; not before `due`."""

    way: str
    count: int
    after_secs: float
    step: int
    due: Path
    commits: int = 0  # what its worker had committed when it fell due
    at: float = 0.0


@dataclass
class Storm:
    """One storm over a crew; `happened` counts everything.

    send: sends the next so many records of the input. promote: promotes the other model, each time it is called.
    """

    crew: Crew
    kafka: KafkaServer
    redis: RedisServer
    to_kafka: TcpProxy
    to_redis: TcpProxy
    session_secs: float
    seed: int
    settings_of: Callable[[str], Mapping[str, object]]
    send: Callable[[int], object]
    promote: Callable[[], object]
    folder: Path
    happened: Counter[str] = field(default_factory=Counter)
    ended: list[WorkerProcess] = field(default_factory=list)
    disturbances: int = 0

    def __post_init__(self) -> None:
        self._tick = threading.Event()
        self._deaths: deque[Death] = deque()
        self._awaited: dict[str, Death] = {}
        self._shares: list[int] = []
        self._asleep: WorkerProcess | None = None
        self._last = "nothing"
        self._settled = 0  # commits of those that have ended
        self._frozen: list[tuple[WorkerProcess, float]] = []

    def rage(self, weather: Weather, events: int) -> None:
        """Go through all of it, until everything that was sent is committed."""
        plan = [name for name, count in weather.counts.items() for _ in range(count)]
        self._drawn("plan").shuffle(plan)
        self.disturbances = len(plan)
        self._weather = weather
        parts = len(plan) + (weather.rounds - 1) * weather.counts["guests_came_and_went"]  # a round sends one, too
        self._shares = [events * (part + 1) // parts - events * part // parts for part in range(parts)]
        self._deaths.extend(self._draw_deaths(weather.kills, len(plan)))
        for name in NAMES:
            self._start(name)
        for number, name in enumerate(plan):
            if number == len(plan) // 2:
                self._exchange()
            self._fall_due(number)
            self._last = f"step {number} of {len(plan)}, {name}"
            getattr(self, name)(self._drawn(f"step {number}"))
            self.happened[name.replace("_", " ")] += 1
            self._go_on(self._commits())
        for _ in range(MORE_TIMES):
            if not self._awaited:
                break
            self.send(MORE)
            self._go_on(self._commits())
        assert not self._awaited, f"no worker came to where it was to die: {self._awaited}"
        self._until(lambda: self.crew.left() == 0, "everything is committed", PROGRESS_SECS + events / 500, 0.5)

    def sum_up(self) -> None:
        """Count what the workers told of it."""
        for worker in self.crew.everybody:
            for what in TOLD:
                self.happened[f"told: {what.replace('_', ' ')}"] += worker.count(what)
            for _, _, _, reason in worker.values("recovering"):
                self.happened[f"recovered: {reason}"] += 1
        for worker, at in self._frozen:
            lost = any(event == "lost" and when >= at for when, event, _ in worker.events)
            self.happened["zombies that lost their partitions"] += lost

    def count(self, begins: str) -> int:
        """Return how often anything happened whose name begins so."""
        return sum(count for what, count in self.happened.items() if what.startswith(begins))

    # The ways to disturb. Each sends its share of the input, and returns when something was disturbed.

    def broker_restarted(self, _drawn: random.Random) -> None:
        self._send()
        self.kafka.restart()

    def broker_crashed(self, _drawn: random.Random) -> None:
        self._send()
        self.kafka.restart(crash=True)

    def store_restarted(self, _drawn: random.Random) -> None:
        self._send()
        self.redis.restart()

    def store_wiped(self, _drawn: random.Random) -> None:
        self._send()
        self._until(lambda: self._stored() > 0, "there is something in the store")
        self.redis.flush()

    def store_slow(self, drawn: random.Random) -> None:
        self._for_a_while(self.to_redis, lambda on: self.to_redis.delay(0.05 if on else 0.0), 1 + drawn.random())

    def store_unreachable(self, drawn: random.Random) -> None:
        self._for_a_while(self.to_redis, self.to_redis.hang, 1 + 3 * drawn.random())  # the store is given 2 s

    def way_to_the_store_cut(self, _drawn: random.Random) -> None:
        self._cut(self.to_redis)

    def broker_slow(self, drawn: random.Random) -> None:
        self._for_a_while(self.to_kafka, lambda on: self.to_kafka.delay(0.05 if on else 0.0), 1 + drawn.random())

    def broker_unreachable(self, drawn: random.Random) -> None:
        self._for_a_while(self.to_kafka, self.to_kafka.hang, 1 + 3 * drawn.random())  # a session lasts 3 s

    def way_to_the_broker_cut(self, _drawn: random.Random) -> None:
        self._cut(self.to_kafka)

    def worker_frozen(self, drawn: random.Random) -> None:
        """Stop one that holds partitions for longer than its session; the others take over, and it wakes a zombie."""
        self._send()
        self._until(lambda: self._froze(drawn), "a worker holds partitions")

    def guests_came_and_went(self, _drawn: random.Random) -> None:
        """Give partitions to one guest after the other, and take them away."""
        for _ in range(self._weather.rounds):
            began, commits = time.monotonic(), self._commits()
            self._send()
            tried = 1
            while not self._guest(began + self._weather.round_secs):
                self.happened["guests that ended before they were handed anything"] += 1
                tried += 1
                assert tried <= GUESTS_TRIED, f"no guest is handed partitions; {self._state()}"
            self.happened["guests that were handed partitions"] += 1
            self._go_on(commits)

    def _for_a_while(self, way: TcpProxy, disturb: Callable[[bool], object], secs: float) -> None:
        before = way.disturbed
        disturb(True)
        try:
            self._send()  # only now, or there might be nothing left that comes this way
            self._watch(secs)
            self._until(lambda: way.disturbed > before, "something comes this way")
        finally:
            disturb(False)

    def _cut(self, way: TcpProxy) -> None:
        self._send()
        before = way.disturbed
        self._until(lambda: way.cut() or way.disturbed > before, "there is a connection to cut")

    def _froze(self, drawn: random.Random) -> bool:
        """Freeze one; return whether there was one, and it was not dying that very moment."""
        holders = [worker for _, worker in sorted(self.crew.workers.items()) if worker.alive and held(worker)]
        if not holders:
            return False
        self._asleep = drawn.choice(holders)
        self._asleep.suspend()
        at = time.time()
        self._watch(1.5 * self.session_secs)
        frozen, self._asleep = self._asleep, None
        if not frozen.alive:
            return False
        frozen.resume()
        self._frozen.append((frozen, at))
        return True

    def _guest(self, until: float) -> bool:
        """Let one come and go; return whether it was handed partitions."""
        guest = self.crew.start(GUEST, **self.settings_of(GUEST))
        self._until(lambda: any(guest.values("assigned")) or not guest.alive, "the guest is handed partitions")
        handed = any(guest.values("assigned"))
        self._watch(until - time.monotonic())
        if guest.alive:
            guest.process.send_signal(signal.SIGTERM)
        self._until(lambda: not guest.alive, "the guest goes")
        self._judge(guest)
        self.crew.past.append(self.crew.workers.pop(GUEST))
        self._settle(guest)
        return handed

    # What goes on meanwhile.

    def _exchange(self) -> None:
        """Promote the other model until a worker takes it over in mid-stream: who starts meanwhile has it already."""
        tried = 0
        while not self._swaps() and tried < MOST_PROMOTIONS:
            at, tried = time.time(), tried + 1
            self.promote()
            if not self._weather.insists:
                return
            self._until(lambda at=at: self._swaps() or self._all_started_since(at), "the promoted model is taken over")
        if tried % 2 == 0:  # what comes now is decided by the second model, however often they took turns
            self.promote()

    def _swaps(self) -> int:
        return sum(worker.count("swapped") for worker in self.crew.everybody)

    def _all_started_since(self, at: float) -> bool:
        workers = [self.crew.workers[name] for name in NAMES]
        return all(w.alive and w.started_at > at and w.count("assigned") for w in workers)

    def _drawn(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}-{purpose}")

    def _draw_deaths(self, kills: int, steps: int) -> list[Death]:
        """Draw the deaths, every way equally often, spread over the steps."""
        drawn = self._drawn("deaths")
        ways = [WAYS[number % len(WAYS)] for number in range(kills)]
        drawn.shuffle(ways)
        return [
            Death(way, drawn.randrange(1, 4), drawn.random() / 2, n * steps // kills, self.folder / f"death-{n}")
            for n, way in enumerate(ways)
        ]

    def _fall_due(self, step: int) -> None:
        for death in (*self._awaited.values(), *self._deaths):
            if death.step <= step:
                death.due.touch()

    def _send(self) -> None:
        self.send(self._shares.pop())

    def _stored(self) -> int:
        with self.redis.client() as client:
            return int(client.dbsize())

    def _watch(self, secs: float) -> None:
        until = time.monotonic() + secs
        while time.monotonic() < until:
            self._look_after()
            self._tick.wait(0.05)

    def _until(
        self, reached: Callable[[], object], what: str, timeout_secs: float = PROGRESS_SECS, pause_secs: float = 0.05
    ) -> None:
        deadline = time.monotonic() + timeout_secs
        while not reached():
            assert time.monotonic() < deadline, f"not within {timeout_secs:.0f} s: {what}; {self._state()}"
            self._watch(pause_secs)

    def _go_on(self, before: int) -> None:
        """Wait until two more batches are committed than `before`, or nothing is left to commit."""
        self._until(lambda: self._commits() >= before + 2 or self.crew.left() == 0, "something is committed")

    def _commits(self) -> int:
        return self._settled + sum(worker.count("committed") for worker in self.crew.workers.values())

    def _settle(self, worker: WorkerProcess) -> None:
        """Keep of one that has ended what it told: there are hundreds in a long storm."""
        worker.end()
        self._settled += worker.count("committed")
        worker.close()

    def _state(self) -> str:
        now = time.time()
        threads = {
            name: w.where() for name, w in self.crew.workers.items() if w.alive and now - w.started_at > OLD_SECS
        }
        workers = "".join(
            f"\n{name}, {now - w.started_at:.0f} s old, {'alive' if w.alive else 'ended'}, holds {held(w)}, told "
            f"{[(f'{now - at:.1f} s ago', event, value) for at, event, value in w.events[-5:]]}:\n{w.errors[-3000:]}\n"
            f"{threads.get(name, '')}"
            for name, w in self.crew.workers.items()
        )
        broker = [line for line in self.kafka.log.splitlines() if self.crew.group in line or "ransaction" in line]
        said = "\n".join(broker[-60:])
        return f"seed {self.seed}, last {self._last}, {dict(self.happened)}{workers}\nthe broker said:\n{said}"

    def _look_after(self) -> None:
        """Kill who is to die at any moment, and start whoever has ended."""
        for name in NAMES:
            worker = self.crew.workers[name]
            death = self._awaited.get(name)
            if (
                death
                and death.way == AT_ANY_MOMENT
                and death.due.exists()
                and worker.alive
                and worker is not self._asleep
            ):
                self._let_die(worker, death)
            if worker.alive:
                continue
            if worker.killed:
                death = self._awaited.pop(name)
                assert death.due.exists(), f"a worker was killed, and not by the storm; {self._state()}"
                self.happened[f"killed: {death.way}"] += 1
            else:
                self._judge(worker)
                if death:
                    self._deaths.appendleft(self._awaited.pop(name))
            self._start(name)
            self._settle(worker)

    def _let_die(self, worker: WorkerProcess, death: Death) -> None:
        """Kill it some moments after it has committed something: one that is idle has nothing to lose."""
        commits = worker.count("committed")
        death.commits = death.commits or commits + 1
        if not death.at and commits >= death.commits:
            death.at = time.monotonic() + death.after_secs
        if death.at and time.monotonic() >= death.at:
            worker.kill()

    def _judge(self, worker: WorkerProcess) -> None:
        """Count a worker that ended by itself, if it may have."""
        if worker.process.returncode == 0:
            return
        found = MAY_END.search(worker.errors)
        assert found, f"a worker ended by itself ({worker.process.returncode}):\n{worker.errors[-3000:]}"
        self.happened[f"ended by itself: {found[1]}"] += 1
        self.ended.append(worker)

    def _start(self, name: str) -> None:
        point = since = None
        if self._deaths:
            death = self._awaited[name] = self._deaths.popleft()
            death.commits, death.at = 0, 0.0
            if death.way != AT_ANY_MOMENT:
                point, since = f"{death.way}:{death.count}", death.due
        self.crew.start(name, point, since, **self.settings_of(name))


def held(worker: WorkerProcess) -> set[int]:
    """Return the partitions a worker holds, by what it has said."""
    found: set[int] = set()
    for _, event, value in list(worker.events):
        if event == "assigned":
            found |= set(value)
        elif event in ("revoked", "lost"):
            found -= set(value)
    return found
