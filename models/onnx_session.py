"""How ONNX Runtime is set up wherever a score comes from it."""

import onnxruntime

__all__ = ["session_options"]


def session_options() -> onnxruntime.SessionOptions:
    """Return the options under which a score does not depend on its batch."""
    options = onnxruntime.SessionOptions()
    # With more than one thread, trees are shared out among threads from some batch size on and their sums added in
    # another order: another last bit. A worker scales by partitions, not by threads.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Warnings go to standard error, in no format of ours; errors are raised.
    options.log_severity_level = 3
    # Said although it is the default: denormal features are compared as they are, as in training.
    options.add_session_config_entry("session.set_denormal_as_zero", "0")
    return options
