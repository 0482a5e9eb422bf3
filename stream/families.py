"""Families of samples as a scrape of the monitor shows them, built from what is known at the moment."""

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

__all__ = ["by_one", "counts", "gauge", "gauges"]


def gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    """Return a gauge without labels."""
    return GaugeMetricFamily(f"fraudstream_{name}", about, float(value))


def gauges(name: str, about: str, labels: Sequence[str], values: Mapping[Any, float | None]) -> GaugeMetricFamily:
    """Return a gauge by label values, a tuple each; those that are None are not shown."""
    family = GaugeMetricFamily(f"fraudstream_{name}", about, labels=labels)
    for key, value in values.items():
        if value is not None:
            family.add_metric(list(key), float(value))
    return family


def counts(name: str, about: str, labels: Sequence[str], values: Mapping[Any, float]) -> CounterMetricFamily:
    """Return a counter by label values, a tuple each."""
    family = CounterMetricFamily(f"fraudstream_{name}", about, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), float(value))
    return family


def by_one(values: Mapping[Any, float]) -> dict[tuple[str, ...], float]:
    """Return counts by one label as counts by a tuple of one."""
    return {(name,): value for name, value in values.items()}
