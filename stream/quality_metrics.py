"""What is known of quality, as families of a scrape."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from models.quality_figures import Figures
from models.quality_watch import QualitySnapshot
from stream.families import by_one, gauges

__all__ = ["quality_families"]

#: What is shown of a model's figures: by the name of the family, what it is, and its value by threshold, "": of none.
_FIGURES: Final[dict[str, tuple[str, dict[str, Callable[[Figures], float | None]]]]] = {
    "labelled_events": ("Labelled decisions that the figures rest on.", {"": lambda of: of.events}),
    "frauds": ("Frauds among them.", {"": lambda of: of.frauds}),
    "label_rate": ("Share of frauds among them.", {"": lambda of: of.label_rate}),
    "roc_auc": ("Chance that a fraud scored above an honest payment.", {"": lambda of: of.roc_auc}),
    "average_precision": ("Average precision.", {"": lambda of: of.average_precision}),
    "brier": ("Mean squared error of the scores.", {"": lambda of: of.brier}),
    "calibration_ratio": (
        "Frauds expected by the scores over those that came.",
        {"": lambda of: of.calibration_ratio},
    ),
    "precision": (
        "Share of frauds among what was stopped.",
        {"review": lambda of: of.review_precision, "decline": lambda of: of.decline_precision},
    ),
    "recall": (
        "Share of frauds that were stopped.",
        {"review": lambda of: of.review_recall, "decline": lambda of: of.decline_recall},
    ),
}


def quality_families(quality: QualitySnapshot) -> Iterator[Metric]:
    """Yield every family; a figure that does not exist, or rests on too few frauds, has no sample."""
    for name, (about, by_threshold) in _FIGURES.items():
        labels = ["model", "segment", *(["threshold"] if any(by_threshold) else [])]
        family = GaugeMetricFamily(f"fraudstream_quality_{name}", about, labels=labels)
        for (model, segment), figures in quality.figures.items():
            for threshold, of in by_threshold.items():
                value = of(figures)
                if value is not None:
                    family.add_metric([model, segment, *([threshold] if threshold else [])], value)
        yield family
    yield gauges("concept_drift_alarm", "1 while errors are more than before.", ["model", "detector"], quality.concept)
    yield gauges(
        "label_rate_drift_alarm",
        "1 while the share of frauds among labels is another than before.",
        ["model"],
        by_one(quality.label_rate),
    )
