"""The null pipeline: what the transport alone costs, with our clients, delivery and batches."""

import json
import sys

from contender import OWN, Contender, Delivery, Job
from kafka_server import ROOT

SCRIPT = ROOT / "tests" / "bench" / "null_pipeline.py"


def null(delivery: Delivery, **more: object) -> Contender:
    """Return the null pipeline; more: settings by dotted key."""

    def command(job: Job) -> list[str]:
        told = {
            "kafka.bootstrap_servers": job.bootstrap,
            "kafka.group": job.group,
            "kafka.delivery": job.delivery,
            **job.line().settings(),
            **more,
        }
        return [sys.executable, str(SCRIPT), json.dumps(told), job.written]

    return Contender("null", delivery, command, environ=OWN)
