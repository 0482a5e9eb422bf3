"""The engine "onnx-gpu": the tensor graph in ONNX Runtime on a CUDA device.

Batches are padded to the next power of two, and each such size has buffers of its own on the device, bound once: no
allocation and no graph of a new shape while scoring. Rows know nothing of each other in the graph, so padding changes
no score. What is too long is cut.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from models.errors import ModelError, NoCudaError
from models.forest import Forest
from models.meta import MetaModel
from models.onnx_graph import INPUT, MARGINS, SCORE
from models.onnx_session import session_options
from models.placement import ALLOWED_ELSEWHERE, check_placement, read_profile
from models.tensor_graph import tensor_graph

__all__ = ["CPU", "CUDA", "OnnxGpuEngine", "TensorEngine", "bucket_of"]

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"

#: Rows of the smallest and the largest padded batch. Fewer than the one are no faster on a device; with the other, one
#: array of 600 trees takes some 40 MiB, and more rows fill no device better.
SMALLEST: Final = 64
LARGEST: Final = 16_384

#: Without TF32, which cuts a factor to 10 bits. No operator of the graph is computed by cuDNN, so none of its choices
#: of algorithm can change a bit; "requested" memory keeps the arena at what the largest batch needs.
CUDA_OPTIONS: Final[Mapping[str, str]] = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}

_DEVICES: Final = {CPU: "cpu", CUDA: "cuda"}


def bucket_of(rows: int, largest: int = LARGEST) -> int:
    """Return the padded size of a batch of 1 to `largest` rows: the next power of two, at least SMALLEST."""
    return min(largest, max(SMALLEST, 1 << (rows - 1).bit_length()))


class _Buffers:
    """Input and outputs of one padded size on the device, bound to the session."""

    def __init__(self, session: Any, device: str, rows: int, features: int) -> None:
        value = onnxruntime.OrtValue
        self.host = np.zeros((rows, features), np.float32)
        # A copy: on the CPU the value would otherwise be the array itself.
        self.x = value.ortvalue_from_numpy(self.host.copy(), device, 0)
        self.outputs = {
            SCORE: value.ortvalue_from_shape_and_type([rows], np.float32, device, 0),
            MARGINS: value.ortvalue_from_shape_and_type([rows, 2], np.float32, device, 0),
        }
        self.binding = session.io_binding()
        self.binding.bind_ortvalue_input(INPUT, self.x)
        for name, output in self.outputs.items():
            self.binding.bind_ortvalue_output(name, output)


class TensorEngine:
    """Scores with the tensor graph on one provider; an instance is used by one thread at a time."""

    name = "onnx-tensors"

    def __init__(
        self,
        xgboost: Forest,
        lightgbm: Forest,
        meta: MetaModel,
        *,
        provider: str,
        largest: int = LARGEST,
        allowed: frozenset[str] = ALLOWED_ELSEWHERE,
    ) -> None:
        """Build the graph, load it, run it once, and prove from the profile where it ran.

        largest: rows of the largest padded batch, a power of two. Raises ModelError where the provider is not there or
        a node ran elsewhere.
        """
        self._device = _DEVICES[provider]
        self._features = xgboost.n_features
        self._largest = largest
        self._buffers: dict[int, _Buffers] = {}
        graph = tensor_graph(xgboost, lightgbm, meta)
        with tempfile.TemporaryDirectory(prefix="fraudstream-") as folder:
            self._session = _session(graph, provider, Path(folder))
            self.score(np.zeros((1, self._features), np.float32))
            events = read_profile(Path(self._session.end_profiling()))
        self.nodes = check_placement(events, provider, allowed)

    def score(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the scores float32[n] of x float32[n, k]."""
        return self._run(x, SCORE, np.empty(len(x), np.float32))

    def margins(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the base models' log-odds float32[n, 2] (XGBoost, LightGBM) of x float32[n, k]."""
        return self._run(x, MARGINS, np.empty((len(x), 2), np.float32))

    def _run(self, x: npt.NDArray[np.float32], output: str, out: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if x.ndim != 2 or x.shape[1] != self._features:
            raise ModelError(f"The model takes rows of {self._features} features, but was given {x.shape}.")
        for at in range(0, len(x), self._largest):
            rows = x[at : at + self._largest]
            buffers = self._of_size(bucket_of(len(rows), self._largest))
            # Whatever an earlier batch left behind the rows is scored with them, and not looked at.
            buffers.host[: len(rows)] = rows
            buffers.x.update_inplace(buffers.host)
            buffers.binding.synchronize_inputs()
            self._session.run_with_iobinding(buffers.binding)
            buffers.binding.synchronize_outputs()
            out[at : at + len(rows)] = buffers.outputs[output].numpy()[: len(rows)]
        return out

    def _of_size(self, rows: int) -> _Buffers:
        found = self._buffers.get(rows)
        if found is None:
            found = self._buffers[rows] = _Buffers(self._session, self._device, rows, self._features)
        return found


class OnnxGpuEngine(TensorEngine):
    """ONNX Runtime on a CUDA device, every node of it."""

    name = "onnx-gpu"

    def __init__(self, xgboost: Forest, lightgbm: Forest, meta: MetaModel) -> None:
        """Raise NoCudaError, in one sentence, on a machine without CUDA."""
        super().__init__(xgboost, lightgbm, meta, provider=CUDA)


def _session(graph: bytes, provider: str, folder: Path) -> Any:
    """Return the session, writing a profile to the folder until it is told to end."""
    if provider not in onnxruntime.get_available_providers():
        raise _absent("this ONNX Runtime was built without it")
    options = session_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(
        graph, options, providers=[(provider, dict(CUDA_OPTIONS) if provider == CUDA else {})]
    )
    # Without a driver or a library of CUDA's the session falls back to the CPU, with no more than a line in a log.
    if provider not in session.get_providers():
        raise _absent("no device or no CUDA library was found")
    return session


def _absent(why: str) -> NoCudaError:
    return NoCudaError(
        f"The engine gpu needs CUDA, and {why}: install fraudstream with the extra gpu in place of cpu on a machine "
        f"with an NVIDIA GPU, or set model.engine to auto."
    )
