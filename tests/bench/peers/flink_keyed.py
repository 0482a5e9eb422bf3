"""PyFlink: a keyed process function with state, as its documentation writes one.

    python flink_keyed.py JOB JARS     in an environment that holds requirements/flink.txt

Each event is scored by the libraries. Exactly once: the sink's transactions end with checkpoints, one a second.
"""

import json
import sys
from pathlib import Path

from pyflink.common import Configuration, SimpleStringSchema, Types, WatermarkStrategy
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.state import ValueStateDescriptor

from listed_windows import columns, expired, features
from native_model import Model

CHECKPOINT_MS = 1_000


class Decide(KeyedProcessFunction):
    def __init__(self, bundle):
        self._bundle = bundle

    def open(self, context: RuntimeContext):
        self._model = Model(self._bundle)
        self._window = context.get_state(ValueStateDescriptor("window", Types.PICKLED_BYTE_ARRAY()))

    def process_element(self, value, ctx):
        payment = json.loads(value)
        window = self._window.value() or ([], [], [], [], [])
        for column, one in zip(window, columns(payment), strict=True):
            column.append(one)
        gone = expired(window[0])
        for column in window:
            del column[:gone]
        self._window.update(window)
        (score,) = self._model.score_rows([features(*window)])
        yield self._model.decision(payment, score).decode()


def configured(job, jars):
    """Return an environment of two slots in this process's own small cluster."""
    settings = Configuration()
    settings.set_string("python.executable", sys.executable)
    settings.set_string("python.client.executable", sys.executable)
    settings.set_string("pipeline.jars", ";".join(f"file://{path}" for path in sorted(Path(jars).glob("*.jar"))))
    settings.set_string("execution.checkpointing.dir", f"file://{job['folder']}/checkpoints")
    settings.set_string("execution.checkpointing.interval", f"{CHECKPOINT_MS}ms")
    settings.set_string("parallelism.default", "2")
    settings.set_string("io.tmp.dirs", job["folder"])
    return settings


def main():
    job, jars = json.loads(sys.argv[1]), sys.argv[2]
    environment = StreamExecutionEnvironment.get_execution_environment(configured(job, jars))
    here = Path(__file__).parent
    for name in ("listed_windows.py", "native_model.py"):
        environment.add_python_file(str(here / name))
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(job["bootstrap"])
        .set_topics(job["source"])
        .set_group_id(job["group"])
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_value_only_deserializer(SimpleStringSchema())
        .build()
    )
    sink = (
        KafkaSink.builder()
        .set_bootstrap_servers(job["bootstrap"])
        .set_record_serializer(
            KafkaRecordSerializationSchema.builder()
            .set_topic(job["decisions"])
            .set_value_serialization_schema(SimpleStringSchema())
            .build()
        )
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .set_transactional_id_prefix(job["group"])
        .set_property("transaction.timeout.ms", "600000")
        .build()
    )
    stream = environment.from_source(source, WatermarkStrategy.no_watermarks(), "payments")
    keyed = stream.key_by(lambda value: json.loads(value)["user_id"], key_type=Types.STRING())
    keyed.process(Decide(job["bundle"]), output_type=Types.STRING()).sink_to(sink)
    environment.execute("race")


if __name__ == "__main__":
    main()
