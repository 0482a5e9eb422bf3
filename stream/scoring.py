"""Which model a worker begins with, and what it takes for a bundle to score."""

from dataclasses import dataclass
from pathlib import Path

from models.bundle import Bundle, open_bundle
from models.ensemble import load_engine, read_forests
from models.errors import ModelError
from models.manifest import HISTOGRAMS
from models.reasons import Explainer
from models.self_check import awkward_rows, check_engine
from state.errors import StateError
from state.features import FeatureSet, parse_feature_set
from stream.errors import FraudstreamError, StartupError
from stream.feature_sets import chosen_feature_set
from stream.judge import ConstantJudge, EnsembleJudge
from stream.line import Judge
from stream.observer import ScoredBy
from stream.settings import Settings
from stream.sources import DirectorySource, Pointer
from stream.telemetry_record import reference_hash
from stream.versions import current_bundle, current_pointer

__all__ = ["First", "Scoring", "engine_of_models", "first_model", "load_scoring", "open_model", "prove"]


@dataclass(frozen=True)
class Scoring:
    """What scores: a feature set, a judge, and the names that stand in every decision.

    bundle: None for the constant engine.
    """

    feature_set: FeatureSet
    judge: Judge
    model: str
    engine: str
    bundle: Bundle | None = None

    def scored_by(self) -> ScoredBy:
        """Return how it is known to whoever counts what it scored."""
        own = self.feature_set
        if self.bundle is None:
            return ScoredBy(self.model, self.engine, own.hash, tuple(own.names))
        reference = reference_hash(self.bundle.files[HISTOGRAMS])
        return ScoredBy(self.model, self.engine, own.hash, tuple(own.names), self.bundle.histograms, reference)


@dataclass(frozen=True)
class First:
    """What a worker begins with. pointer: None unless model.follow. failure: why it is the cached model, or empty."""

    scoring: Scoring
    pointer: Pointer | None = None
    failure: str = ""


def load_scoring(settings: Settings) -> Scoring:
    """Open the bundle (or none, for the constant engine) and the feature set that goes with it; proven as at a swap.

    Raises FraudstreamError, ModelError or StateError.
    """
    if settings.model.engine == "constant":
        constant = ConstantJudge(settings.model.constant_score)
        return Scoring(chosen_feature_set(settings), constant, "constant", "constant")
    return prove(settings, current_bundle(settings))


def engine_of_models(settings: Settings) -> str:
    """Return the engine that a worker with these settings runs a model on; with a constant score it runs none."""
    return "auto" if settings.model.engine == "constant" else settings.model.engine


def first_model(settings: Settings) -> First:
    """Return what a worker begins with: the bundle, or the champion, or where that cannot be had the cached one.

    Raises FraudstreamError, ModelError or StateError where there is none.
    """
    model = settings.model
    if not model.follow or model.engine == "constant":
        return First(load_scoring(settings))
    if Path(model.follow).resolve() == Path(model.cache).resolve():
        raise StartupError(
            f"model.cache is the registry directory {model.follow} itself: give the worker a directory of its own."
        )
    try:
        return _begin(settings, model.follow)
    except (FraudstreamError, ModelError, StateError) as error:
        try:
            cached = _begin(settings, model.cache)
        except (FraudstreamError, ModelError, StateError):
            raise StartupError(f"{error} Nor is there a model in {model.cache} to begin with.") from error
        return First(cached.scoring, cached.pointer, str(error))


def prove(settings: Settings, directory: Path) -> Scoring:
    """Load a bundle that is to score: checked against state and settings, its engine against the other one.

    Raises FraudstreamError, ModelError or StateError.
    """
    bundle, feature_set = _opened(settings, directory)
    settings.state_spec().check(feature_set)
    forests = read_forests(bundle)
    engine = load_engine(bundle, settings.model.engine, forests)
    explainer = Explainer(bundle, forests)
    check_engine(bundle, engine, forests)
    explainer.top(awkward_rows(forests, 16))
    return Scoring(
        feature_set, EnsembleJudge(engine, bundle.thresholds, explainer), bundle.version, engine.name, bundle
    )


def _begin(settings: Settings, directory: str) -> First:
    source = DirectorySource(Path(directory))
    pointer = current_pointer(source, directory)
    return First(prove(settings, source.open(pointer)), pointer)


def open_model(directory: Path) -> tuple[Bundle, FeatureSet]:
    """Open a bundle and the feature set it holds. Raises ModelError, StartupError."""
    bundle = open_bundle(directory)
    feature_set = parse_feature_set(bundle.feature_set)
    if feature_set.hash != bundle.feature_set_hash or feature_set.names != bundle.feature_names:
        raise StartupError(
            f"The bundle {bundle.directory} names feature set {bundle.feature_set_hash}, but holds {feature_set.hash}: "
            f"it was written by another version; train it again."
        )
    return bundle, feature_set


def _opened(settings: Settings, directory: Path) -> tuple[Bundle, FeatureSet]:
    """Return the bundle and its feature set, which must be the one that the settings name, if they do."""
    bundle, feature_set = open_model(directory)
    declared = chosen_feature_set(settings) if settings.state.feature_set else None
    if declared is not None and declared.hash != feature_set.hash:
        raise StartupError(
            f"The model in {bundle.directory} was trained on feature set {feature_set.name} ({feature_set.hash}), but "
            f"state.feature_set names {declared.name} ({declared.hash}): remove that setting, or train a model on it."
        )
    return bundle, feature_set
