"""The sections of the settings file that say what is watched: telemetry, labels, quality, drift and the monitor."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from stream.quantity import Duration
from stream.sections import about

__all__ = ["DriftSettings", "LabelSettings", "MonitorSettings", "QualitySettings", "TelemetrySettings"]


class TelemetrySettings(Struct, frozen=True, kw_only=True):
    """[telemetry]: what workers tell the monitor of the traffic."""

    enabled: Annotated[bool, about("Write it")] = True
    interval: Annotated[Duration, about("What one record covers; closed at the end of a batch")] = Duration(1_000)
    segment: Annotated[
        str, about("The transaction's field by which decisions and quality are told apart; empty: not at all")
    ] = "country"
    max_segments: Annotated[
        int, Meta(ge=1, le=1_000, description="Most segments told apart; the rarer ones count as other")
    ] = 50
    sample_rows: Annotated[
        int, Meta(ge=0, le=1_000, description="Rows of the uniform sample in each record, for detectors")
    ] = 8


class LabelSettings(Struct, frozen=True, kw_only=True):
    """[labels]: how the monitor joins labels with decisions."""

    index: Annotated[str, Meta(min_length=1, description="The monitor's file of decisions that wait for labels")] = (
        "var/labels.sqlite"
    )
    retention: Annotated[
        Duration, about("How long a decision waits for its label; chargebacks take up to 120 days")
    ] = Duration(120 * 86_400_000)
    sample_rate: Annotated[
        float,
        Meta(
            gt=0, le=1, description="Share of approved decisions kept in the index; quality weighs them by its inverse"
        ),
    ] = 1.0
    recovery: Annotated[
        Literal["refuse", "rebuild", "accept_partial"],
        about("What to do where index and log do not fit together"),
    ] = "refuse"


class QualitySettings(Struct, frozen=True, kw_only=True):
    """[quality]: what the monitor computes from labelled decisions."""

    window: Annotated[Duration, about("How far back, by the time of the label, figures of quality reach")] = Duration(
        30 * 86_400_000
    )
    delay: Annotated[
        Duration,
        about("A labelled decision counts once it is this old: of younger ones only frauds found early are known"),
    ] = Duration(7 * 86_400_000)
    every: Annotated[Duration, about("How often figures of quality are computed")] = Duration(60_000)
    max_events: Annotated[int, Meta(ge=1_000, description="Most labelled decisions a model's figures rest on")] = (
        1_000_000
    )
    min_frauds: Annotated[int, Meta(ge=1, description="Fewest frauds that a figure or an alarm may rest on")] = 30


class DriftSettings(Struct, frozen=True, kw_only=True):
    """[drift]: when the traffic counts as other than what the model was trained on."""

    window: Annotated[Duration, about("Traffic that is compared with the reference")] = Duration(3_600_000)
    every: Annotated[Duration, about("How often it is compared")] = Duration(60_000)
    min_events: Annotated[int, Meta(ge=100, description="Fewest events in a window that is judged")] = 1_000
    psi: Annotated[
        float, Meta(gt=0, description="Population stability index from which a feature or the score has drifted")
    ] = 0.2
    false_alarms: Annotated[
        float,
        Meta(
            gt=0, lt=1, description="Share of false ones among a comparison's significant findings (Benjamini-Hochberg)"
        ),
    ] = 0.01
    persistence: Annotated[
        int,
        Meta(
            ge=1,
            description="Comparisons in a row that must agree before an alarm; over less than a quarter of the window"
            " they look at the same events",
        ),
    ] = 15
    epoch: Annotated[
        Duration, about("Detectors begin anew at multiples of this, so that a restart finds their state")
    ] = Duration(86_400_000)
    rhythm: Annotated[
        Duration,
        about(
            "After how long traffic repeats itself. Alarms also ask whether one such time ago looked the same, so that"
            " no night is a drift"
        ),
    ] = Duration(86_400_000)
    longer_rhythm: Annotated[
        Duration,
        about(
            "After how long it repeats itself again, 7d where weekends differ much; monitor.read_back must be longer"
            " then. 0s: none"
        ),
    ] = Duration(0)
    unlearned_psi: Annotated[
        float,
        Meta(
            gt=0,
            description="Bound in place of psi against one rhythm ago, while the longer one is not known; and against"
            " the reference, while neither is. Those of other figures widen alike",
        ),
    ] = 0.5
    # A Sunday without any drift stood at 0.21 over the whole day (docs/drift.md).
    day_psi: Annotated[
        float,
        Meta(
            gt=0,
            description="Bound in place of psi where a whole rhythm is compared with the reference: a Sunday is unlike"
            " days of all kinds",
        ),
    ] = 0.3
    missing: Annotated[
        float, Meta(gt=0, le=1, description="Change in the share of missing values from which a feature is broken")
    ] = 0.05
    mix_psi: Annotated[
        float, Meta(gt=0, description="Index of decisions against one rhythm ago from which their mix has shifted")
    ] = 0.05
    shift: Annotated[
        float,
        Meta(
            gt=0,
            lt=0.5,
            description="How far from 1/2 the chance must be that a value lies above one expected, for a detector to"
            " count",
        ),
    ] = 0.1
    clear: Annotated[
        float, Meta(gt=0, le=1, description="Share of a bound that a figure must fall below to end an alarm")
    ] = 0.75
    detector_every: Annotated[Duration, about("How often the detectors are given a row of the uniform sample")] = (
        Duration(1_000)
    )
    detector_false_alarms: Annotated[
        float, Meta(gt=0, description="False alarms of all of a model's detectors to be expected in an epoch")
    ] = 0.1
    kswin_every: Annotated[int, Meta(ge=1, description="Rows of which KSWIN, the dear one, is given one")] = 30
    adversarial_every: Annotated[
        Duration, about("How often a classifier is asked to tell the traffic from that one rhythm ago; 0s: never")
    ] = Duration(3_600_000)
    # A Monday against its Sunday came to 0.72 without any drift (docs/drift.md).
    adversarial_auc: Annotated[
        float, Meta(gt=0.5, lt=1, description="Area under its curve, out of fold, from which the traffic has changed")
    ] = 0.75
    adversarial_rows: Annotated[
        int, Meta(ge=120, le=5_000, description="Rows of either kind that it is given at most")
    ] = 960


class MonitorSettings(Struct, frozen=True, kw_only=True):
    """[monitor]: the process that watches."""

    group: Annotated[str, Meta(min_length=1, description="Its consumer group; one monitor of a group is active")] = (
        "fraudstream-monitor"
    )
    address: Annotated[str, Meta(min_length=1, description="Address of its /metrics and health")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port of its /metrics and health; 0 picks a free one")] = (
        9_109
    )
    grace: Annotated[Duration, about("How long an interval waits for the telemetry of slow workers")] = Duration(5_000)
    read_back: Annotated[
        Duration,
        about(
            "How far back telemetry is read again at a start: longer than all that drift looks back together, which is"
            " drift.epoch and drift.rhythm, or drift.longer_rhythm where that is more; two of drift.window; and one"
            " more with twice drift.persistence times drift.every, or three of drift.adversarial_every where that is"
            " more"
        ),
    ] = Duration(54 * 3_600_000)
