"""What can go wrong with a model, and what a caller can do about it.

ModelError
├── BundleError     a bundle that cannot be written or trusted: train it or copy it again
├── EngineError     a sound model of a form that one engine does not take: choose another
└── TrainingError   a history that cannot be learned from: the sentence says what to change
"""


class ModelError(Exception):
    """Base of the tree. The message is one sentence that says what to change."""


class BundleError(ModelError):
    """A bundle, or a model to be put into one, is unreadable, altered or of a kind not supported."""


class EngineError(ModelError):
    """The engine cannot take this model, though another can."""


class TrainingError(ModelError):
    """The training data or parameters do not allow an ensemble to be trained."""

    exit_code = 2  # of the command: the user's data must change
