"""Quix Streams: a stateful function over a dataframe, as its documentation writes one, or tuned.

    python quix.py JOB documented|tuned     in an environment that holds requirements/quix.txt

Documented: the user's payments are a list in state, and the libraries predict each event. Tuned: the state is packed
bytes, ONNX Runtime predicts (its call for one row is the fastest that there is), JSON is read by orjson, records are
handed on as bytes, and two processes share the partitions. It has no batches between its state and its sink.
"""

import json
import sys

import orjson
from quixstreams import Application

from listed_windows import ITEM, columns, expired, features, packed, unpacked
from native_model import Model


def documented(app, job):
    model = Model(job["bundle"])

    def decide(payment, state):
        kept = state.get("payments", [])
        kept.append(columns(payment))
        times = [one[0] for one in kept]
        del kept[: expired(times)]
        state.set("payments", kept)
        (score,) = model.score_rows([features(*map(list, zip(*kept, strict=True)))])
        return json.loads(model.decision(payment, score))

    frame = app.dataframe(app.topic(job["source"], value_deserializer="json"))
    frame = frame.apply(decide, stateful=True)
    frame.to_topic(app.topic(job["decisions"], value_serializer="json"))


def tuned(app, job):
    model = Model(job["bundle"], job["graph"])

    def decide(value, state):
        payment = orjson.loads(value)
        kept = state.get_bytes("payments", b"") + packed(payment)
        times, *others = unpacked(kept)
        gone = expired(times)
        state.set_bytes("payments", kept[gone * ITEM.size :])
        (score,) = model.score_rows([features(times[gone:], *(column[gone:] for column in others))])
        return model.decision(payment, score)

    frame = app.dataframe(app.topic(job["source"], value_deserializer="bytes"))
    frame = frame.apply(decide, stateful=True)
    frame.to_topic(app.topic(job["decisions"], value_serializer="bytes"))


def main():
    job, form = json.loads(sys.argv[1]), sys.argv[2]
    more = {}
    if form == "tuned":
        more = {
            "commit_interval": 2.0,
            "consumer_poll_timeout": 0.05,
            "consumer_extra_config": {"fetch.wait.max.ms": 50, "queued.min.messages": 20_000},
            "producer_extra_config": {"linger.ms": 20, "compression.type": "lz4", "batch.num.messages": 10_000},
        }
    app = Application(
        broker_address=job["bootstrap"],
        consumer_group=job["group"],
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        state_dir=f"{job['folder']}/state-{form}",
        loglevel="WARNING",
        **more,
    )
    {"documented": documented, "tuned": tuned}[form](app, job)
    app.run()


if __name__ == "__main__":
    main()
