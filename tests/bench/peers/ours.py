"""Ours: the worker as the command starts it, with what it keeps, writes and scores with as settings."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from contender import OWN, Contender, Delivery, Job, Ours
from kafka_server import ROOT

HERE = Path(__file__).parent
AS_USUAL = Ours()


def settings_of(job: Job, store: str = "redis", *, silent: bool = False) -> dict[str, object]:
    """Return the worker's settings by dotted key: the defaults but for where things are."""
    return {
        "kafka.bootstrap_servers": job.bootstrap,
        "kafka.group": job.group,
        "kafka.delivery": job.delivery,
        "model.bundle": job.silent if silent else job.bundle,
        "metrics.enabled": False,
        "store.checkpoint_interval_ms": job.checkpoint_ms,
        "store.kind": store,
        "store.url": job.redis,
        "store.path": str(Path(job.folder, "state.sqlite")),
        **job.line().settings(),
    }


def ours(
    name: str = "ours",
    delivery: Delivery = "exactly_once",
    *,
    store: str = "redis",
    silent: bool = False,
    script: Path = ROOT / "tests" / "line_process.py",
    expected: Ours = AS_USUAL,
    **more: object,
) -> Contender:
    """Return a worker; more: settings by dotted key. silent: nothing is held, so nothing explained."""

    def command(job: Job) -> list[str]:
        told = settings_of(job, store, silent=silent) | more
        return [sys.executable, str(script), json.dumps(told)]

    return Contender(name, delivery, command, environ=OWN, ours=replace(expected, held=not silent))


def variants() -> list[Contender]:
    """Return what one setting changes, each beside the default (redis, telemetry, feature log, reasons, forest)."""
    return [
        ours("ours"),
        ours("ours", "at_least_once"),
        ours("ours, sqlite", store="sqlite"),
        ours("ours, memory", store="memory"),
        ours(
            "ours, no telemetry",
            expected=Ours(telemetry=False),
            **{"telemetry.enabled": False, "telemetry.segment": ""},
        ),
        ours("ours, no feature log", script=HERE / "without_feature_log.py", expected=Ours(features=False)),
        ours("ours, no reasons", silent=True),
        ours("ours, engine onnx", expected=Ours(exact=False), **{"model.engine": "onnx"}),
        ours("ours, batches of 512", **{"worker.max_batch": 512}),
        ours("ours, batches of 8,192", **{"worker.max_batch": 8_192}),
        ours("ours, nothing compressed", **{"kafka.producer": {"compression.type": "none"}}),
        ours("ours, zstd", **{"kafka.producer": {"compression.type": "zstd"}}),
        replace(ours("ours, two processes"), copies=2),
    ]
