"""Ours: the worker as the command starts it, with what it keeps, writes and scores with as settings."""

import json
import sys
from pathlib import Path

from contender import Contender, Delivery, Job
from kafka_server import ROOT

STORES = ("redis", "sqlite", "memory")


def ours(
    name: str = "ours", delivery: Delivery = "exactly_once", *, store: str = "redis", **settings: object
) -> Contender:
    """Return a worker; settings by dotted key, with __ for the dot."""
    more = {key.replace("__", "."): value for key, value in settings.items()}
    silent = more.pop("silent", False)

    def command(job: Job) -> list[str]:
        told = {
            "kafka.bootstrap_servers": job.bootstrap,
            "kafka.group": job.group,
            "kafka.delivery": job.delivery,
            "model.bundle": job.silent if silent else job.bundle,
            "metrics.enabled": False,
            "store.kind": store,
            "store.url": job.redis,
            "store.path": str(Path(job.folder, "state.sqlite")),
            **job.line().settings(),
            **more,
        }
        return [sys.executable, str(ROOT / "tests" / "line_process.py"), json.dumps(told)]

    return Contender(name, delivery, command)


def variants() -> list[Contender]:
    """Return what one setting changes, each beside the default (redis, telemetry, feature log, reasons, forest)."""
    return [
        ours("ours"),
        ours("ours", "at_least_once"),
        ours("ours, sqlite", store="sqlite"),
        ours("ours, memory", store="memory"),
        ours("ours, no telemetry", telemetry__enabled=False, telemetry__segment=""),
        ours("ours, no feature log", topics__features=""),
        ours("ours, no reasons", silent=True),
        ours("ours, engine onnx", model__engine="onnx"),
    ]
