"""State: windows, store and memory."""

from typing import Final

from line import INSTANCE, W
from panels import Panel, dashboard, quantile, stat

PANELS: Final = [
    stat(
        "Store",
        "Whether the store answers every worker.",
        ((f"max(fraudstream_store_breaker_open{W})", "store"),),
        width=6,
        steps=(1,),
        texts={"0": "answers", "1": "does not answer"},
    ),
    stat(
        "Oldest checkpoint",
        "Longest time since a partition was stored while it had something to store. A killed worker replays that much.",
        ((f"max(fraudstream_checkpoint_age_seconds{W})", "age"),),
        unit="s",
        width=6,
        steps=(60, 120),
    ),
    stat(
        "Partitions paused",
        "Partitions whose intake waits for the store or for unwritten state.",
        ((f"sum(fraudstream_paused_partitions{W})", "paused"),),
        width=6,
        steps=(1,),
    ),
    stat(
        "Users in memory",
        "All workers together.",
        ((f"sum(fraudstream_state_users{W})", "users"),),
        width=6,
    ),
    Panel(
        "What users' windows take",
        "Memory of the windows by worker; above state.memory_limit_bytes idle users are evicted.",
        ((f"sum by (instance) (fraudstream_state_bytes{W})", "{{instance}}"),),
        unit="bytes",
    ),
    Panel(
        "What is not stored yet",
        "Users changed since they were last written.",
        ((f"sum by (instance) (fraudstream_state_unwritten_users{W})", "{{instance}}"),),
    ),
    Panel(
        "How old checkpoints are",
        "By worker, its oldest partition. The line is where the alert begins.",
        ((f"max by (instance) (fraudstream_checkpoint_age_seconds{W})", "{{instance}}"),),
        unit="s",
        steps=(120,),
    ),
    Panel(
        "How long the store takes",
        "p99 of one read of users, and of one slice of a checkpoint.",
        (
            (quantile(0.99, "fraudstream_store_load_seconds", W), "load"),
            (quantile(0.99, "fraudstream_checkpoint_seconds", W), "checkpoint"),
        ),
        unit="s",
        log=True,
    ),
    Panel(
        "Users that come and go",
        "Looked up in the store because memory had them not, and dropped from memory because they were idle.",
        (
            (f"sum(rate(fraudstream_loaded_users_total{W}[1m]))", "looked up"),
            (f"sum(rate(fraudstream_evicted_users_total{W}[1m]))", "evicted"),
        ),
        unit="ops",
    ),
    Panel(
        "What is replayed",
        "Transactions a second that rebuild state without output, after a start or a rebalance.",
        ((f"sum by (instance) (rate(fraudstream_replayed_events_total{W}[1m]))", "{{instance}}"),),
        unit="ops",
    ),
    Panel(
        "Memory of the processes",
        "Resident, by process: compare it with the container's limit.",
        (('process_resident_memory_bytes{job=~"fraudstream-.*"}', "{{instance}}"),),
        unit="bytes",
    ),
    Panel(
        "CPU of the processes",
        "Cores in use, by process.",
        (('rate(process_cpu_seconds_total{job=~"fraudstream-.*"}[1m])', "{{instance}}"),),
    ),
    Panel(
        "Telemetry the workers could not write",
        "Records a second that were dropped: the monitor lacks those decisions.",
        ((f"sum by (instance) (rate(fraudstream_telemetry_dropped_total{W}[5m]))", "{{instance}}"),),
        unit="ops",
    ),
]

DASHBOARD: Final = dashboard("state", "fraudstream: state", "Windows, store and memory.", PANELS, (INSTANCE,))
