"""The dashboards, panel by panel. `python deploy/grafana/dashboards.py` writes them as the JSON that Grafana reads."""

import json
from pathlib import Path
from typing import Final

from panels import Panel, Variable, dashboard

FOLDER: Final = Path(__file__).with_name("dashboards")

OUTCOMES: Final = {"approve": "green", "review": "yellow", "decline": "red"}
W: Final = '{instance=~"$instance"}'
M: Final = '{model=~"$model"}'


def quantile(q: float, metric: str, where: str = "", by: str = "le") -> str:
    """Return the PromQL of a quantile over the last minute."""
    return f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{where}[1m])))"


INSTANCE: Final = Variable("instance", "Worker", "label_values(fraudstream_worker_up, instance)")

OVERVIEW: Final = [
    Panel(
        "Workers up",
        "How many workers answer. Red: none, so nothing is decided.",
        (('sum(up{job="fraudstream-worker"}) or vector(0)', "up"),),
        kind="stat",
        width=4,
        height=4,
        steps=(1, 2),
        falling=True,
    ),
    Panel(
        "Alerts open",
        "Alerts that fire now; the list below says which. Each has an entry in docs/runbook.md.",
        (('count(ALERTS{alertname=~"Fraudstream.*",alertstate="firing"}) or vector(0)', "alerts"),),
        kind="stat",
        width=4,
        height=4,
        steps=(1, 5),
    ),
    Panel(
        "Decisions a second",
        "All workers together, over five minutes.",
        (("sum(rate(fraudstream_decisions_total[5m]))", "decisions"),),
        unit="ops",
        kind="stat",
        width=4,
        height=4,
    ),
    Panel(
        "Behind by",
        "How long the waiting transactions take at the present pace. Above a minute, payments go through undecided.",
        (("fraudstream:lag_age:seconds >= 0 or fraudstream:lag_records:sum == 0", "lag"),),
        unit="s",
        kind="stat",
        width=4,
        height=4,
        steps=(10, 60),
    ),
    Panel(
        "Slow decisions in an hour",
        "Share that took more than 250 ms from the record's timestamp. The objective allows 1 %.",
        (("fraudstream:decision_latency_slow:ratio_rate1h", "slow"),),
        unit="percentunit",
        kind="stat",
        width=4,
        height=4,
        steps=(0.01, 0.144),
    ),
    Panel(
        "The monitor looked",
        "Age of the newest interval it has judged. A dead watcher must not look like a quiet stream.",
        (("max(fraudstream_monitor_interval_age_seconds)", "ago"),),
        unit="s",
        kind="stat",
        width=4,
        height=4,
        steps=(60, 300),
    ),
    Panel(
        "What comes out",
        "Decisions a second, by outcome.",
        (("sum by (decision) (rate(fraudstream_decisions_total[1m]))", "{{decision}}"),),
        unit="ops",
        width=12,
        stacked=True,
        colours=OUTCOMES,
    ),
    Panel(
        "How long a decision takes",
        "From the record's timestamp to its decision. The line is the objective: 99 % within 250 ms.",
        (
            (quantile(0.5, "fraudstream_decision_latency_seconds"), "p50"),
            (quantile(0.99, "fraudstream_decision_latency_seconds"), "p99"),
        ),
        unit="s",
        width=12,
        steps=(0.25,),
        log=True,
    ),
    Panel(
        "What waits",
        "Transactions not decided yet, all partitions together.",
        (("fraudstream:lag_records:sum", "waiting"),),
        width=12,
    ),
    Panel(
        "Reviewed and declined",
        "Share of the decisions, over five minutes; the rest is approved.",
        (('fraudstream:decisions:share_rate5m{decision!="approve"}', "{{decision}}"),),
        unit="percentunit",
        width=12,
        stacked=True,
        colours=OUTCOMES,
    ),
    Panel(
        "Which features drift most",
        "Population stability index over drift.window against the model's reference. From 0.2 on it counts as drift.",
        (("topk(8, max by (feature) (fraudstream_drift_psi))", "{{feature}}"),),
        kind="bargauge",
        width=8,
        steps=(0.1, 0.2),
        least=0,
    ),
    Panel(
        "Which model scores",
        "One line for each version in use. More than one for longer than a swap is a mismatch.",
        (("count by (model, engine, feature_set) (fraudstream_model_info)", ""),),
        kind="table",
        width=8,
    ),
    Panel(
        "What is wrong",
        "Alerts that fire now.",
        (('count by (alertname, severity) (ALERTS{alertname=~"Fraudstream.*",alertstate="firing"})', ""),),
        kind="table",
        width=8,
    ),
]

STREAM: Final = [
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
        tuple(
            (quantile(q, "fraudstream_decision_latency_seconds", W), name)
            for q, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"))
        ),
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
        (
            (quantile(0.5, "fraudstream_commit_seconds", W), "p50"),
            (quantile(0.99, "fraudstream_commit_seconds", W), "p99"),
        ),
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
]

STATE: Final = [
    Panel(
        "Store",
        "Whether the store answers every worker.",
        ((f"max(fraudstream_store_breaker_open{W})", "store"),),
        kind="stat",
        width=6,
        height=4,
        steps=(1,),
        texts={"0": "answers", "1": "does not answer"},
    ),
    Panel(
        "Oldest checkpoint",
        "Longest time since a partition was stored while it had something to store. A killed worker replays that much.",
        ((f"max(fraudstream_checkpoint_age_seconds{W})", "age"),),
        unit="s",
        kind="stat",
        width=6,
        height=4,
        steps=(60, 120),
    ),
    Panel(
        "Partitions paused",
        "Partitions whose intake waits for the store or for unwritten state.",
        ((f"sum(fraudstream_paused_partitions{W})", "paused"),),
        kind="stat",
        width=6,
        height=4,
        steps=(1,),
    ),
    Panel(
        "Users in memory",
        "All workers together.",
        ((f"sum(fraudstream_state_users{W})", "users"),),
        kind="stat",
        width=6,
        height=4,
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

DRIFT: Final = [
    Panel(
        "Alerts of the monitor",
        "Open now, by signal; the topic alerts says which feature, segment or figure.",
        (("fraudstream_monitor_alerts_firing > 0 or vector(0)", "{{signal}}"),),
        kind="stat",
        width=8,
        height=5,
        steps=(1,),
    ),
    Panel(
        "Score drift",
        "Population stability index of the scores against the holdout. From 0.2 on it counts as drift.",
        ((f"fraudstream_score_psi{M}", "{{model}}"),),
        kind="stat",
        width=4,
        height=5,
        steps=(0.1, 0.2),
        nothing="not judged yet: fewer than drift.min_events",
    ),
    Panel(
        "Caught by review and decline",
        "Share of the frauds known by now that were held, all segments.",
        (('fraudstream_quality_recall{model=~"$model",segment="",threshold="review"}', "{{model}}"),),
        unit="percentunit",
        kind="stat",
        width=4,
        height=5,
        nothing="not judged yet: fewer than quality.min_frauds, or younger than quality.delay",
    ),
    Panel(
        "Frauds known",
        "What the figures of quality rest on. Few frauds prove little.",
        (('fraudstream_quality_frauds{model=~"$model",segment=""}', "{{model}}"),),
        kind="stat",
        width=4,
        height=5,
        steps=(30, 100),
        falling=True,
        nothing="not judged yet: fewer than quality.min_frauds, or younger than quality.delay",
    ),
    Panel(
        "Last label came",
        "How long ago. Figures of quality are those of the decisions labelled by then.",
        (("time() - max(fraudstream_label_last_timestamp_seconds)", "ago"),),
        unit="s",
        kind="stat",
        width=4,
        height=5,
        steps=(172800, 345600),
    ),
    Panel(
        "How far features have drifted",
        "Population stability index over drift.window, the six highest. From the line on it counts as drift.",
        (('topk(6, fraudstream_drift_psi{model=~"$model",feature=~"$feature"})', "{{feature}}"),),
        width=12,
        steps=(0.2,),
        nothing="not judged yet: fewer than drift.min_events",
    ),
    Panel(
        "Which features alarm",
        "Red while an alert about the feature is open.",
        (('max by (feature) (fraudstream_drift_alarm{model=~"$model",feature=~"$feature"})', "{{feature}}"),),
        kind="state-timeline",
        width=12,
        steps=(1,),
        texts={"0": "as trained", "1": "alarm"},
        nothing="not judged yet: fewer than drift.min_events",
    ),
    Panel(
        "What is missing",
        "Share of missing values, the six highest. A jump is a field that a producer no longer sends.",
        (('topk(6, fraudstream_drift_missing_ratio{model=~"$model",feature=~"$feature"})', "{{feature}}"),),
        unit="percentunit",
        most=1,
    ),
    Panel(
        "Declined, by segment",
        "Share declined over drift.window, the six highest. A rise in one is an attack there, or a broken field.",
        (('topk(6, fraudstream_decision_share{decision="decline",segment!=""})', "{{segment}}"),),
        unit="percentunit",
    ),
    Panel(
        "How the mix moved",
        "Index of decisions against one drift.rhythm before, the ten highest; the unnamed segment is all together.",
        (("topk(10, fraudstream_decision_mix_psi)", "{{segment}}"),),
    ),
    Panel(
        "How good the ranking is",
        "From labels that have come: average precision and area under the ROC curve, all segments.",
        (
            ('fraudstream_quality_average_precision{model=~"$model",segment=""}', "average precision {{model}}"),
            ('fraudstream_quality_roc_auc{model=~"$model",segment=""}', "ROC AUC {{model}}"),
        ),
        unit="percentunit",
        most=1,
        nothing="not judged yet: fewer than quality.min_frauds, or younger than quality.delay",
    ),
    Panel(
        "How good the thresholds are",
        "Precision: share of frauds among what was held. Recall: share of frauds that was held.",
        (
            ('fraudstream_quality_precision{model=~"$model",segment=""}', "precision {{threshold}}"),
            ('fraudstream_quality_recall{model=~"$model",segment=""}', "recall {{threshold}}"),
        ),
        unit="percentunit",
        most=1,
        nothing="not judged yet: fewer than quality.min_frauds, or younger than quality.delay",
    ),
    Panel(
        "Are scores probabilities?",
        "Frauds expected by the scores over those that came: 1 is calibrated, 2 sees twice too many.",
        (('fraudstream_quality_calibration_ratio{model=~"$model",segment=""}', "{{model}}"),),
        nothing="not judged yet: fewer than quality.min_frauds, or younger than quality.delay",
    ),
    Panel(
        "What became of labels",
        "Labels a minute, by outcome. Many that wait: decisions that the monitor has not read.",
        (("sum by (outcome) (rate(fraudstream_labels_total[5m])) * 60 > 0", "{{outcome}}"),),
        unit="cpm",
        stacked=True,
    ),
    Panel(
        "How late labels are",
        "From a payment to its label.",
        (
            ("histogram_quantile(0.5, sum by (le) (rate(fraudstream_label_delay_seconds_bucket[1h])))", "p50"),
            ("histogram_quantile(0.95, sum by (le) (rate(fraudstream_label_delay_seconds_bucket[1h])))", "p95"),
        ),
        unit="s",
    ),
    Panel(
        "Is everything watched?",
        "Share of committed decisions that no telemetry covers, and what the monitor has yet to read.",
        (("fraudstream:telemetry_uncovered:ratio1h", "uncovered"),),
        unit="percentunit",
        steps=(0.01,),
    ),
    Panel(
        "How far the monitor is behind",
        "Records it has not read, by topic.",
        (("max by (topic) (fraudstream_monitor_lag_records)", "{{topic}}"),),
        width=8,
    ),
    Panel(
        "What detectors saw",
        "Detections an hour of ADWIN, Page-Hinkley and KSWIN on the sample, the ten most frequent.",
        (
            (
                "topk(10, sum by (detector, subject) (increase(fraudstream_detector_alarms_total[1h])) > 0)",
                "{{detector}} {{subject}}",
            ),
        ),
        nothing="no detection in the last hour",
    ),
    Panel(
        "Can a classifier tell?",
        "How well one tells the traffic from that of one rhythm before: 0.5 not at all, 1 always.",
        ((f"fraudstream_adversarial_auc{M}", "{{model}}"),),
        least=0.4,
        most=1,
    ),
]

MODEL: Final = Variable("model", "Model", "label_values(fraudstream_score_psi, model)")
FEATURE: Final = Variable("feature", "Feature", 'label_values(fraudstream_drift_psi{model=~"$model"}, feature)')

DASHBOARDS: Final = {
    "overview": dashboard("overview", "fraudstream: is it well?", "What to look at first.", OVERVIEW),
    "stream": dashboard("stream", "fraudstream: stream", "How fast, how late, what was refused.", STREAM, (INSTANCE,)),
    "state": dashboard("state", "fraudstream: state", "Windows, store and memory.", STATE, (INSTANCE,)),
    "drift": dashboard("drift", "fraudstream: drift and quality", "Does the model still fit?", DRIFT, (MODEL, FEATURE)),
}


def rendered(name: str) -> str:
    """Return a dashboard as the file holds it."""
    return json.dumps(DASHBOARDS[name], indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(rendered(name))
