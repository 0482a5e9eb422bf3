"""The overview: whether it is well."""

from typing import Final

from panels import OUTCOMES, Panel, dashboard, quantiles, stat

PANELS: Final = [
    stat(
        "Workers up",
        "How many workers answer. Red: none, so nothing is decided.",
        (('sum(up{job="fraudstream-worker"}) or vector(0)', "up"),),
        steps=(1, 2),
        falling=True,
    ),
    stat(
        "Alerts open",
        "Alerts that fire now; the list below says which. Each has an entry in docs/runbook.md.",
        (('count(ALERTS{alertname=~"Fraudstream.*",alertstate="firing"}) or vector(0)', "alerts"),),
        steps=(1, 5),
    ),
    stat(
        "Decisions a second",
        "All workers together, over five minutes.",
        (("sum(rate(fraudstream_decisions_total[5m]))", "decisions"),),
        unit="ops",
    ),
    stat(
        "Behind by",
        "How long the waiting transactions take at the present pace. Above a minute, payments go through undecided.",
        (("fraudstream:lag_age:seconds >= 0 or fraudstream:lag_records:sum == 0", "lag"),),
        unit="s",
        steps=(10, 60),
    ),
    stat(
        "Slow decisions in an hour",
        "Share that took more than 250 ms from the record's timestamp. The objective allows 1 %.",
        (("fraudstream:decision_latency_slow:ratio_rate1h", "slow"),),
        unit="percentunit",
        steps=(0.01, 0.144),
    ),
    stat(
        "The monitor looked",
        "Age of the newest interval it has judged. A dead watcher must not look like a quiet stream.",
        (("max(fraudstream_monitor_interval_age_seconds)", "ago"),),
        unit="s",
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
        quantiles("fraudstream_decision_latency_seconds"),
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

DASHBOARD: Final = dashboard("overview", "fraudstream: is it well?", "What to look at first.", PANELS)
