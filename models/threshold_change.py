"""A version with other thresholds, and nothing else changed: no training, the same scores."""

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from models.bundle import Bundle
from models.errors import ModelError
from models.gate import Scorer
from models.holdout import Holdout
from models.manifest import CARD, MANIFEST, OUT_OF_FOLD, ThresholdsEntry, entry, read_manifest, render, seal
from models.metrics import figures
from models.policy import Thresholds

# What figures at thresholds begin with; those of other thresholds would stand there as if they were the new ones'.
AT_THRESHOLDS = ("review_", "decline_")


def with_thresholds(
    bundle: Bundle, manifest: bytes, thresholds: Thresholds, held: Holdout | None = None
) -> tuple[Bundle, Mapping[str, bytes]]:
    """Return the bundle with other thresholds and all its files, `manifest` being its manifest.json as it is.

    Figures are computed anew on `held`, its holdout; without one, and out of fold, nothing is known at the new
    thresholds. Its lineage names the version it comes from; its own version is the short hash of its content, so the
    same change gives the same version. Raises ModelError where the thresholds are the same.
    """
    if thresholds == bundle.thresholds:
        raise ModelError(
            f"Version {bundle.version} has the thresholds {thresholds.review:g} and {thresholds.decline:g} already."
        )
    metrics = _metrics(bundle, thresholds, held)
    lineage = {**bundle.lineage, "parent": bundle.version}
    files = dict(bundle.files)
    if CARD in files:
        files[CARD] = _note(bundle, thresholds) + files[CARD]
    sealed = seal(
        msgspec.structs.replace(
            read_manifest(manifest, bundle.directory),
            version="",
            thresholds=ThresholdsEntry(thresholds.review, thresholds.decline),
            metrics=metrics,
            lineage=lineage,
            files={name: entry(content) for name, content in files.items()},
        )
    )
    changed = replace(
        bundle, version=sealed.version, thresholds=thresholds, metrics=metrics, lineage=lineage, files=files
    )
    return changed, {**files, MANIFEST: render(sealed)}


def _metrics(bundle: Bundle, thresholds: Thresholds, held: Holdout | None) -> dict[str, float]:
    kept = {
        name: value
        for name, value in bundle.metrics.items()
        if not name.removeprefix(OUT_OF_FOLD).startswith(AT_THRESHOLDS)
    }
    if held is None:
        return kept
    scorer = Scorer(bundle)
    return kept | figures(scorer.scores(held.features), scorer.margins(held.features), held.labels, thresholds)


def _note(bundle: Bundle, thresholds: Thresholds) -> bytes:
    return (
        f"> Version {bundle.version} with other thresholds: review from {thresholds.review:.6g} on, decline from "
        f"{thresholds.decline:.6g} on. What follows was written for {bundle.version}; of its figures, those at "
        f"thresholds are not this version's.\n\n"
    ).encode()
