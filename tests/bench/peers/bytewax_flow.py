"""Bytewax: a stateful map, as its documentation writes one, or tuned. Recovery is on in both: state is kept on disk.

    python bytewax_flow.py JOB documented|tuned     in an environment that holds requirements/bytewax.txt

Documented: each event is scored in the map by the libraries. Tuned: the map only keeps windows and hands features on;
`flat_map_batch` then scores all that the engine has in hand at once.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from listed_windows import columns, expired, features
from native_model import Model

BATCH = 2_000


def observe(window, payment):
    """Return the user's window with one more payment."""
    window = window or ([], [], [], [], [])
    for column, value in zip(window, columns(payment), strict=True):
        column.append(value)
    gone = expired(window[0])
    if gone:
        for column in window:
            del column[:gone]
    return window


def dataflow(job, form):
    model = Model(job["bundle"])
    flow = Dataflow("race")
    brokers = [job["bootstrap"]]
    size = BATCH if form == "tuned" else 1_000
    source = kop.input("payments", flow, brokers=brokers, topics=[job["source"]], batch_size=size)
    keyed = op.map("parse", source.oks, lambda message: (message.key.decode(), orjson.loads(message.value)))

    def decide(window, payment):
        window = observe(window, payment)
        (score,) = model.score_rows([features(*window)])
        return window, KafkaSinkMessage(payment["user_id"].encode(), model.decision(payment, score))

    def look(window, payment):
        window = observe(window, payment)
        return window, (payment, features(*window))

    def score(pairs):
        pairs = [pair for _, pair in pairs]
        scores = model.score_rows([row for _, row in pairs])
        return [
            KafkaSinkMessage(payment["user_id"].encode(), model.decision(payment, score))
            for (payment, _), score in zip(pairs, scores, strict=True)
        ]

    if form == "tuned":
        decisions = op.flat_map_batch("score", op.stateful_map("look", keyed, look), score)
    else:
        decisions = op.key_rm("unkey", op.stateful_map("decide", keyed, decide))
    kop.output("decisions", decisions, brokers=brokers, topic=job["decisions"])
    return flow


def main():
    job, form = json.loads(sys.argv[1]), sys.argv[2]
    folder = Path(job["folder"], "recovery")
    folder.mkdir()
    init_db_dir(folder, 1)
    cli_main(dataflow(job, form), recovery_config=RecoveryConfig(folder), epoch_interval=timedelta(seconds=10))


if __name__ == "__main__":
    main()
