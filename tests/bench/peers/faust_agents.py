"""Faust: an agent over the stream with a table, as its documentation writes one, or tuned.

    python faust_agents.py JOB documented|tuned     in an environment that holds requirements/faust.txt

Documented: one event at a time, a table of the users' payments (kept in memory, written to its changelog), the
libraries predict, each decision is awaited. Tuned: `take` hands over up to a thousand events at once, which are scored
together; sends are not awaited; the state is a plain dictionary, for a table cannot be written from a batch of several
partitions, so that nothing of it would outlive the process.
"""

import json
import sys

import faust
import orjson

from listed_windows import columns, expired, features
from native_model import Model

BATCH, WITHIN_SECS = 1_000, 0.05


def make_app(job, form):
    more = {"stream_buffer_maxsize": 16_384, "producer_linger": 0.02} if form == "tuned" else {}
    return faust.App(
        job["group"],
        broker=f"kafka://{job['bootstrap']}",
        datadir=f"{job['folder']}/faust",
        store="memory://",
        topic_partitions=job["partitions"],
        topic_replication_factor=1,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        **more,
    )


def documented(app, job):
    model = Model(job["bundle"])
    windows = app.Table("windows", default=list, partitions=job["partitions"])
    decisions = app.topic(job["decisions"], key_serializer="raw", value_serializer="raw")

    @app.agent(app.topic(job["source"], key_type=bytes, value_type=bytes, value_serializer="json"))
    async def decide(stream):
        async for payment in stream:
            user = payment["user_id"]
            kept = windows[user]
            kept.append(columns(payment))
            del kept[: expired([one[0] for one in kept])]
            windows[user] = kept
            (score,) = model.score_rows([features(*map(list, zip(*kept, strict=True)))])
            await decisions.send(key=user.encode(), value=model.decision(payment, score))


def tuned(app, job):
    model = Model(job["bundle"])
    windows = {}
    decisions = app.topic(job["decisions"], key_serializer="raw", value_serializer="raw")

    def row(payment):
        window = windows.setdefault(payment["user_id"], ([], [], [], [], []))
        for column, value in zip(window, columns(payment), strict=True):
            column.append(value)
        gone = expired(window[0])
        if gone:
            for column in window:
                del column[:gone]
        return features(*window)

    source = app.topic(job["source"], key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    @app.agent(source)
    async def decide(stream):
        async for values in stream.take(BATCH, within=WITHIN_SECS):
            payments = list(map(orjson.loads, values))
            scores = model.score_rows(list(map(row, payments)))
            for payment, score in zip(payments, scores, strict=True):
                decisions.send_soon(key=payment["user_id"].encode(), value=model.decision(payment, score))


def main():
    job, form = json.loads(sys.argv[1]), sys.argv[2]
    app = make_app(job, form)
    {"documented": documented, "tuned": tuned}[form](app, job)
    app.finalize()
    faust.Worker(app, loglevel="warn").execute_from_commandline()


if __name__ == "__main__":
    main()
