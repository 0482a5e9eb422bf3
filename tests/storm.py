"""Everything at once that can go wrong around two workers, in an order drawn from a seed.

A step sends its share of the input, disturbs one thing, and waits until work goes on. All the while workers kill
themselves at named points or are killed at any moment, and whoever has ended is started again, as a supervisor does.
"""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from disturbed import POINTS, Crew
from kafka_server import KafkaServer
from kafka_topics import wait_until
from redis_server import RedisServer
from tcp_proxy import TcpProxy
from worker_process import WorkerProcess

NAMES = ("w1", "dynamic-2")
PROGRESS_SECS = 120.0

#: What a worker may end with by itself in a storm, because whatever runs it starts it again: another has its place, the
#: broker or the store cannot be reached at the start or for too long.
MAY_END = re.compile(
    r"^(stream|state)\.errors\.(ProducerFenced|BrokerSilent|BatchAborted|StartupError|StoreUnavailable|FraudstreamError)"
    r"(?!.*store\.recovery)",
    re.MULTILINE,
)


@dataclass
class Weather:
    """How much of what; the names are those of Storm's methods."""

    kills: int
    counts: Mapping[str, int]


@dataclass
class Storm:
    """One storm over a crew; `happened` counts everything."""

    crew: Crew
    kafka: KafkaServer
    redis: RedisServer
    to_kafka: TcpProxy
    to_redis: TcpProxy
    session_secs: float
    seed: int
    settings_of: Callable[[str], Mapping[str, object]]
    happened: Counter[str] = field(default_factory=Counter)
    ended: list[WorkerProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._tick = threading.Event()
        self._ways: dict[str, str] = {}
        self._deaths: list[str] = []

    def rage(self, weather: Weather, shares: Callable[[int], Iterable[Callable[[], object]]]) -> None:
        """Go through all of it. shares: gives what sends the input in so many parts."""
        ways = [*POINTS, "random"]
        self._deaths = [ways[i % len(ways)] for i in range(weather.kills)]
        plan = [name for name, count in weather.counts.items() for _ in range(count)]
        self._rng.shuffle(plan)
        steps = max(len(plan), weather.kills // len(NAMES))
        for name in NAMES:
            self._start(name)
        for number, send in enumerate(shares(steps)):
            send()
            if number < len(plan):
                getattr(self, plan[number])()
                self.happened[plan[number].replace("_", " ")] += 1
            self._go_on()
        while self._ways:
            self._look_after()
            self._tick.wait(0.05)
            if self.crew.left() == 0:  # nothing is left to die of: the rest dies at any moment
                self._ways = dict.fromkeys(self._ways, "random")

    # The ways to disturb.

    def broker_restarted(self) -> None:
        self.kafka.restart()

    def broker_crashed(self) -> None:
        self.kafka.restart(crash=True)

    def store_restarted(self) -> None:
        self.redis.restart()

    def store_wiped(self) -> None:
        self.redis.flush()

    def store_slow(self) -> None:
        self._for_a_while(lambda on: self.to_redis.delay(0.05 if on else 0.0))

    def store_unreachable(self) -> None:
        self._for_a_while(self.to_redis.hang)

    def way_to_the_store_cut(self) -> None:
        self.to_redis.cut()

    def broker_slow(self) -> None:
        self._for_a_while(lambda on: self.to_kafka.delay(0.05 if on else 0.0))

    def broker_unreachable(self) -> None:
        self._for_a_while(self.to_kafka.hang)

    def way_to_the_broker_cut(self) -> None:
        self.to_kafka.cut()

    def worker_frozen(self) -> None:
        """Stop one for longer than its session; the others take over, and it wakes as a zombie."""
        alive = [worker for worker in self.crew.workers.values() if worker.alive]
        if alive:
            frozen = self._rng.choice(alive)
            frozen.suspend()
            self._watch(1.5 * self.session_secs)
            frozen.resume()

    def worker_joined_and_left(self) -> None:
        guest = self.crew.start("dynamic-guest", **self.settings_of("dynamic-guest"))
        wait_until(lambda: guest.count("assigned") or not guest.alive, "the guest is given its share", PROGRESS_SECS)
        self._watch(self._rng.random())
        if guest.alive:
            guest.stop(PROGRESS_SECS)
        self._judge(guest)
        self.crew.past.append(self.crew.workers.pop("dynamic-guest"))

    # What goes on meanwhile.

    def _for_a_while(self, disturb: Callable[[bool], object]) -> None:
        disturb(True)
        self._watch(1 + self._rng.random())
        disturb(False)

    def _watch(self, secs: float) -> None:
        until = time.monotonic() + secs
        while time.monotonic() < until:
            self._look_after()
            self._tick.wait(0.05)

    def _go_on(self) -> None:
        """Wait until another batch is committed, or nothing is left to commit."""
        before = self._commits()
        deadline = time.monotonic() + PROGRESS_SECS
        while self._commits() < before + 2 and self.crew.left() > 0:
            self._look_after()
            self._tick.wait(0.05)
            assert time.monotonic() < deadline, (
                f"nothing was committed for {PROGRESS_SECS:.0f} s after {dict(self.happened)}, seed {self.seed}; "
                f"{[(w.alive, w.events[-3:], w.errors[-1000:]) for w in self.crew.workers.values()]}"
            )

    def _commits(self) -> int:
        return sum(worker.count("committed") for worker in self.crew.everybody)

    def _look_after(self) -> None:
        """Kill who is to die at any moment, and start whoever has ended."""
        for name in NAMES:
            worker = self.crew.workers[name]
            if self._ways.get(name) == "random" and worker.alive and worker.count("committed"):
                worker.kill()
            if worker.alive:
                continue
            if worker.killed:
                self.happened[f"killed: {self._ways.pop(name)}"] += 1
            else:
                self._judge(worker)
                if name in self._ways:
                    self._deaths.append(self._ways.pop(name))
            self._start(name)

    def _judge(self, worker: WorkerProcess) -> None:
        """Count a worker that ended by itself, if it may have."""
        if worker.process.returncode == 0:
            return
        found = MAY_END.search(worker.errors)
        assert found, f"a worker ended by itself ({worker.process.returncode}):\n{worker.errors[-3000:]}"
        self.happened[f"ended by itself: {found[2]}"] += 1
        self.ended.append(worker)

    def _start(self, name: str) -> None:
        point = None
        if self._deaths:
            way = self._ways[name] = self._deaths.pop(0)
            point = None if way == "random" else f"{way}:{self._rng.randrange(1, 4)}"
        self.crew.start(name, point, **self.settings_of(name))
