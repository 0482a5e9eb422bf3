"""The feature set that the settings name."""

from pathlib import Path

from state.errors import FeatureSetError
from state.features import FeatureSet, default_feature_set, parse_feature_set
from stream.errors import UsageError
from stream.settings import Settings

__all__ = ["chosen_feature_set"]


def chosen_feature_set(settings: Settings) -> FeatureSet:
    """Return state.feature_set, or the one that ships with fraudstream. Raises UsageError."""
    if not settings.state.feature_set:
        return default_feature_set()
    path = Path(settings.state.feature_set)
    try:
        return parse_feature_set(path.read_bytes())
    except FeatureSetError as error:
        raise UsageError(f"{path}: {error}") from error
    except OSError as error:
        raise UsageError(
            f"The feature set {path} cannot be read ({error.strerror}): correct state.feature_set."
        ) from error
