"""Drift and quality: whether the model still fits."""

from typing import Final

from panels import Panel, Variable, dashboard, quantile, stat

M: Final = '{model=~"$model"}'
NO_EVENTS: Final = "not judged yet: fewer than drift.min_events"
NO_LABELS: Final = "not judged yet: fewer than quality.min_frauds, or younger than quality.delay"


def alarms(title: str, about: str, kind: str, width: int = 8) -> Panel:
    """Return a panel with a line for each feature, red while an alert of this kind is open."""
    return Panel(
        title,
        about,
        ((f'max by (feature) (fraudstream_{kind}_alarm{{model=~"$model",feature=~"$feature"}})', "{{feature}}"),),
        kind="state-timeline",
        width=width,
        steps=(1,),
        texts={"0": "as trained", "1": "alarm"},
        nothing=NO_EVENTS,
    )


PANELS: Final = [
    stat(
        "Alerts of the monitor",
        "Open now, by signal; the topic alerts says which feature, segment or figure.",
        (("fraudstream_monitor_alerts_firing > 0 or vector(0)", "{{signal}}"),),
        width=8,
        height=5,
        steps=(1,),
    ),
    stat(
        "Score drift",
        "Population stability index of the scores against the holdout. From 0.2 on it counts as drift.",
        ((f"fraudstream_score_psi{M}", "{{model}}"),),
        height=5,
        steps=(0.1, 0.2),
        nothing=NO_EVENTS,
    ),
    stat(
        "Caught by review and decline",
        "Share of the frauds known by now that were held, all segments.",
        (('fraudstream_quality_recall{model=~"$model",segment="",threshold="review"}', "{{model}}"),),
        unit="percentunit",
        height=5,
        nothing=NO_LABELS,
    ),
    stat(
        "Frauds known",
        "What the figures of quality rest on. Few frauds prove little.",
        (('fraudstream_quality_frauds{model=~"$model",segment=""}', "{{model}}"),),
        height=5,
        steps=(30, 100),
        falling=True,
        nothing=NO_LABELS,
    ),
    stat(
        "Last label came",
        "How long ago. Figures of quality are those of the decisions labelled by then.",
        (("time() - max(fraudstream_label_last_timestamp_seconds)", "ago"),),
        unit="s",
        height=5,
        steps=(172800, 345600),
    ),
    Panel(
        "How far features have drifted",
        "Stability index over drift.window, the six highest, and over the last whole drift.rhythm, the three highest. "
        "From the line on the one counts as drift, the other from drift.day_psi.",
        (
            ('topk(6, fraudstream_drift_psi{model=~"$model",feature=~"$feature"})', "{{feature}}"),
            ('topk(3, fraudstream_drift_long_psi{model=~"$model",feature=~"$feature"})', "{{feature}}, a whole rhythm"),
        ),
        width=12,
        steps=(0.2,),
        nothing=NO_EVENTS,
    ),
    alarms(
        "Which features alarm", "Red while the feature is distributed otherwise than in training.", "drift", width=12
    ),
    alarms("Which turned missing", "Red while the feature is missing more or less often than in training.", "missing"),
    alarms("Which a detector called", "Red while ADWIN, Page-Hinkley or KSWIN saw a change that stays.", "detector"),
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
        nothing=NO_LABELS,
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
        nothing=NO_LABELS,
    ),
    Panel(
        "Are scores probabilities?",
        "Frauds expected by the scores over those that came: 1 is calibrated, 2 sees twice too many.",
        (('fraudstream_quality_calibration_ratio{model=~"$model",segment=""}', "{{model}}"),),
        nothing=NO_LABELS,
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
            (quantile(0.5, "fraudstream_label_delay_seconds", over="1h"), "p50"),
            (quantile(0.95, "fraudstream_label_delay_seconds", over="1h"), "p95"),
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
    Panel(
        "Which labels fit nothing",
        "Labels that wait for their decision, and those that came to wait in an hour. Many that stay: other ids.",
        (
            ("max(fraudstream_joiner_pending_labels)", "wait"),
            ('sum(increase(fraudstream_labels_total{outcome="unmatched"}[1h]))', "came to wait in an hour"),
        ),
    ),
    Panel(
        "Does the joiner join",
        "Batches of decisions and labels it commits a minute. None while something waits is a joiner that is stuck.",
        (("sum(rate(fraudstream_joiner_commits_total[5m])) * 60", "commits"),),
        unit="cpm",
    ),
    Panel(
        "Telemetry that counts for nothing",
        "Parts of telemetry set aside in ten minutes, by reason; the runbook says what each means.",
        (("sum by (reason) (increase(fraudstream_telemetry_set_aside_total[10m])) > 0", "{{reason}}"),),
        stacked=True,
        nothing="none",
    ),
]

MODEL: Final = Variable("model", "Model", "label_values(fraudstream_score_psi, model)")
FEATURE: Final = Variable("feature", "Feature", 'label_values(fraudstream_drift_psi{model=~"$model"}, feature)')

DASHBOARD: Final = dashboard(
    "drift", "fraudstream: drift and quality", "Does the model still fit?", PANELS, (MODEL, FEATURE)
)
