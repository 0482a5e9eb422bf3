"""A registry, a worker's cache and a swapper that looks when it is told to: swaps without a stream."""

from dataclasses import dataclass

from clock import Clock
from small_models import promote
from stream.app import _Models, _swapper
from stream.observer import Observer
from stream.scoring import first_model
from stream.settings import load_settings


class Told(Observer):
    """Every hook of a swap, in order."""

    def __init__(self):
        self.events = []
        self.kernels = []
        self.current = None

    def preparing(self, version):
        self.events.append(("preparing", version))

    def swapped(self, *, model, engine, feature_set, former, approved_by):
        self.events.append(("swapped", former, model, approved_by))

    def window_kernel(self, *, feature_set, failure):
        self.kernels.append((feature_set, failure))

    def swap_refused(self, version, running, sentence):
        self.events.append(("refused", version, running, sentence))

    def followed(self, *, failure, is_current):
        self.current = (failure, is_current)


class FakeLine:
    """Keeps the scorer it is told to use."""

    def __init__(self):
        self.scorer = None

    def use(self, scorer):
        self.scorer = scorer


@dataclass(frozen=True)
class Around:
    feature_bytes: int = 1 << 20


class Stand:
    """A registry, a worker's cache, and a swapper that looks when it is told to."""

    def __init__(self, folder, bundles, **more):
        self.registry, self.cache = folder / "registry", folder / "cache"
        self.bundles = bundles
        self.told, self.clock, self.line = Told(), Clock(), FakeLine()
        followed = {"model.follow": str(self.registry), "model.cache": str(self.cache), **more}
        self.settings = load_settings(None, {}, followed)
        self.renewals, self.can_renew = [], True

    def begin(self, around=Around()):
        first = first_model(self.settings)
        models = _Models(self.settings, self.settings.state_spec(), around)
        running = models.model(first.scoring, first.pointer)
        self.swapper = _swapper(self.settings, self.told, models, running)
        self.swapper._clock = self.clock
        self.line.use(running.scorer)
        return first

    def promote(self, name, by="ada"):
        return promote(self.registry, self.bundles[name], by)

    def look(self, secs=5.0):
        """Let the swapper look once, and the loop come to the end of a batch."""
        self.clock.now += secs
        self.swapper.poll()
        self.swapper.swap(self.line, self.renew)

    def renew(self, make_windows):
        self.renewals.append(make_windows().feature_set.hash)
        return self.can_renew

    @property
    def version(self):
        return self.line.scorer.encoder._model

    def kinds(self):
        return [event[0] for event in self.told.events]


def spoil_byte(registry, version):
    path = registry / version / "lightgbm.txt"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
