"""What can go wrong with a model, and what a caller can do about it.

ModelError
├── BundleError     a bundle that cannot be written or trusted: train it or copy it again
├── EngineError     a sound model of a form that one engine does not take: choose another
├── NoCudaError     an engine that needs a GPU, on a machine without: choose another, or another machine
├── EvaluationError a sample that no figure can be computed on: the sentence says what to change
└── TrainingError   a history that cannot be learned from: the sentence says what to change
"""


class ModelError(Exception):
    """Base of the tree. The message is one sentence that says what to change."""


class BundleError(ModelError):
    """A bundle, or a model to be put into one, is unreadable, altered or of a kind not supported."""


class EngineError(ModelError):
    """The engine cannot take this model, though another can."""


class NoCudaError(ModelError):
    """The engine runs on CUDA, which this machine has not."""


class EvaluationError(ModelError):
    """The labelled sample, or what is to be done with it, does not allow an evaluation."""


class TrainingError(ModelError):
    """The training data or parameters do not allow an ensemble to be trained."""

    exit_code = 2  # of the command: the user's data must change
