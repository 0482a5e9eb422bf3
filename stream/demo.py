"""The whole line in one process, on the trial broker, for a bounded time.

Step 1  compiled kernels, and a model: trained on simulated cardholders, or taken from the last time
Step 2  the trial broker, its topics, and a worker on a thread
Step 3  payments of other cardholders, a few bad records among them, at a steady rate
Step 4  the live view, until everything published is decided
Step 5  an orderly stop, and a summary
"""

import time
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from models.bundle import open_bundle
from models.errors import ModelError
from models.manifest import OUT_OF_FOLD
from state.features import default_feature_set
from state.windows import warm
from stream.app import compose
from stream.codec import warm_codec
from stream.demo_cast import DRAIN_SECS, FETCH_WAIT_MS, Cast, DecisionReader, Traffic, WorkerPart
from stream.demo_summary import summary
from stream.embedded import EmbeddedBroker
from stream.errors import FraudstreamError
from stream.health import Health, HealthServer
from stream.metrics import PrometheusObserver
from stream.observer import Observers
from stream.scoring import load_scoring
from stream.scrape import Rates, take_sample
from stream.settings import Settings, load_settings
from stream.top import Recent, run_top
from stream.training import EVENTS, demo_simulation, train_simulated

__all__ = ["run_demo"]

VAR: Final = Path("var/demo")

VIEW_SECS: Final = 1.0
JOIN_SECS: Final = 30.0
WORTH_A_WORD_SECS: Final = 5.0


def run_demo(seconds: int, rate: int, seed: int, *, var: Path = VAR) -> None:
    """Run the demonstration and print to standard output; raises FraudstreamError where something fails."""
    console = Console()
    # Step 1
    _compile(console)
    bundle = _model(console, var, seed)
    settings = _settings(bundle)
    _load_engine(settings)
    # Step 2
    with EmbeddedBroker() as broker:
        names = settings.topics
        broker.create_topics([names.transactions, names.decisions, names.features, names.dead_letters])
        metrics, health, recent = PrometheusObserver(), Health(), Recent()
        app = compose(settings, Observers(metrics, health), bootstrap=broker.bootstrap)
        traffic = Traffic(settings, broker.bootstrap, seconds, rate, seed)
        cast = Cast(WorkerPart(app), traffic, DecisionReader(settings, broker.bootstrap, recent))
        with HealthServer("127.0.0.1", 0, health, metrics.registry) as server, cast:
            _await_worker(console, cast, health)
            _say(console, f"publishing {rate:,} payments a second for {seconds} s; Ctrl-C ends it early\n")
            # Step 3
            cast.perform()
            # Step 4
            title = "fraudstream demo"
            run_top([server.url], VIEW_SECS, console, stop=cast, recent=recent, title=title)
            # Step 5
            cast.finish()
            totals = Rates.between(None, take_sample([server.url], time.monotonic))
    _say(console, "")
    for line in summary(cast, totals, bundle):
        _say(console, line)
    if missing := traffic.good - len(cast.decisions.outcomes):
        raise FraudstreamError(f"{missing:,} transactions were not decided within {DRAIN_SECS:.0f} s of the last one.")


def _settings(bundle: Path) -> Settings:
    given = {
        "kafka.bootstrap_servers": "embedded",
        "kafka.delivery": "at_least_once",
        "kafka.consumer.fetch.wait.max.ms": FETCH_WAIT_MS,
        "kafka.producer.linger.ms": 1,
        "store.kind": "memory",
        "model.bundle": str(bundle),
    }
    return load_settings(None, {}, given)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _compile(console: Console) -> None:
    """Compile the window kernels, or load them: either takes longer than many batches."""
    started = time.monotonic()
    with console.status("compiling the window kernels, which happens once"):
        warm()
        warm_codec()
    if (secs := time.monotonic() - started) > WORTH_A_WORD_SECS:
        _say(console, f"compiled the window kernels in {secs:.0f} s; the next start finds them")


def _load_engine(settings: Settings) -> None:
    """Score once, so that no transaction waits for the libraries to be loaded."""
    scoring = load_scoring(settings)
    scoring.judge.judge(np.zeros((1, len(scoring.feature_set.names)), np.float32), np.zeros(1, np.uint16))


def _model(console: Console, var: Path, seed: int) -> Path:
    """Return the bundle for this seed and the features that ship, training it where there is none."""
    feature_set = default_feature_set()
    directory = var / f"model-{seed}-{feature_set.hash[:12]}"
    try:
        version = open_bundle(directory).version
    except ModelError:
        started = time.monotonic()
        with console.status("training a model") as status:

            def tell(step: str) -> None:
                if console.is_terminal:
                    status.update(step)
                else:
                    _say(console, step)

            bundle = train_simulated(directory, demo_simulation(EVENTS, seed), feature_set=feature_set, tell=tell)
        _say(
            console,
            f"trained model {bundle.version} on {EVENTS:,} simulated payments in {time.monotonic() - started:.0f} s "
            f"(average precision {bundle.metrics[OUT_OF_FOLD + 'average_precision']:.2f} on payments it had not seen)",
        )
    else:
        _say(console, f"model {version}, trained by an earlier demo, from {directory}")
    return directory


def _await_worker(console: Console, cast: Cast, health: Health) -> None:
    """Wait until the worker holds its partitions: the trial broker lets a new group wait for more members."""
    deadline = time.monotonic() + JOIN_SECS
    with console.status("the worker joins its group"):
        while health.unready() is not None and not cast.wait(0.05):
            if time.monotonic() > deadline:
                raise FraudstreamError(f"The worker got no partitions within {JOIN_SECS:.0f} s: try again.")
