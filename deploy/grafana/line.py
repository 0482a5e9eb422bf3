"""The stream: how fast, how late, what was refused."""

from typing import Final

from panels import Panel, Variable, dashboard, quantiles

__all__ = ["DASHBOARD", "INSTANCE", "W"]

#: Chosen among the workers above the panels.
W: Final = '{instance=~"$instance"}'
INSTANCE: Final = Variable("instance", "Worker", "label_values(fraudstream_worker_up, instance)")

PANELS: Final = [
    Panel(
        "Who decides how much",
        "Transactions a second, by worker. One at zero holds no partition, or is stuck.",
        ((f"sum by (instance) (rate(fraudstream_events_total{W}[1m]))", "{{instance}}"),),
        unit="ops",
        width=12,
    ),
    Panel(
        "Which partitions wait",
        "The five partitions with the most transactions waiting. One alone is a hot key.",
        ((f"topk(5, max by (partition) (fraudstream_consumer_lag_records{W}))", "partition {{partition}}"),),
        width=12,
    ),
    Panel(
        "Latency",
        "From the record's timestamp to its decision. The line is the objective: 99 % within 250 ms.",
        quantiles("fraudstream_decision_latency_seconds", W, (0.5, 0.9, 0.99, 0.999)),
        unit="s",
        steps=(0.25,),
        log=True,
    ),
    Panel(
        "Where the time goes",
        "Seconds of each second spent in each stage, all workers together. Consume waits for records.",
        (
            (
                f"sum by (stage) (rate(fraudstream_stage_seconds_sum{W}[1m]))",
                "{{stage}}",
            ),
        ),
        unit="s",
        stacked=True,
    ),
    Panel(
        "How long a commit takes",
        "From a batch's last record to its commit: the broker's part of the latency.",
        quantiles("fraudstream_commit_seconds", W),
        unit="s",
        log=True,
    ),
    Panel(
        "How large batches are",
        "Mean records of a batch: large ones mean a backlog, small ones a quiet stream.",
        (
            (
                (
                    f"sum by (instance) (rate(fraudstream_batch_records_sum{W}[1m])) "
                    f"/ sum by (instance) (rate(fraudstream_batch_records_count{W}[1m]))"
                ),
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        "What was refused",
        "Dead letters a second, by reason. The records are in the dead-letter topic.",
        ((f"sum by (reason) (rate(fraudstream_dead_letters_total{W}[5m])) > 0", "{{reason}}"),),
        unit="ops",
        stacked=True,
    ),
    Panel(
        "What was unusual",
        "Flagged transactions a second: late, duplicate, conflict, truncated.",
        ((f"sum by (flag) (rate(fraudstream_flagged_events_total{W}[5m]))", "{{flag}}"),),
        unit="ops",
        stacked=True,
    ),
    Panel(
        "Batches given up",
        "Aborts a second, by worker: each is decided again. A few come with a broker's restart.",
        ((f"sum by (instance) (rate(fraudstream_aborts_total{W}[5m]))", "{{instance}}"),),
        unit="ops",
    ),
    Panel(
        "Who holds partitions",
        "Partitions each worker holds, and those of them that are live (their replay is over).",
        (
            (f"fraudstream_assigned_partitions{W}", "{{instance}} holds"),
            (f"fraudstream_live_partitions{W}", "{{instance}} live"),
        ),
    ),
    Panel(
        "Does every loop go round",
        "Rounds a second, by worker, with or without records. At zero the loop hangs, whatever else it shows.",
        ((f"sum by (instance) (rate(fraudstream_turns_total{W}[1m]))", "{{instance}}"),),
        unit="ops",
    ),
    Panel(
        "Which partitions stand still",
        "Transactions waiting in partitions of which nothing was committed for ten minutes.",
        (
            (
                (
                    f"max by (partition) (fraudstream_consumer_lag_records{W}) > 0 "
                    f"and max by (partition) (changes(fraudstream_committed_offset{W}[10m])) == 0"
                ),
                "partition {{partition}}",
            ),
        ),
        nothing="none",
    ),
]

DASHBOARD: Final = dashboard(
    "stream", "fraudstream: stream", "How fast, how late, what was refused.", PANELS, (INSTANCE,)
)
