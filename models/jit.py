"""How the kernels of this package are compiled.

An entry point is compiled once for each signature it is called with and cached on disk. Numba's cache looks only at
the entry point's own file, so an edit of a function it calls would go unseen: here an entry is stamped with the sources
of all kernels instead.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = Path(__file__).parent
# The banks too: a kernel unpacks their arrays in the order in which they are declared.
KERNELS = [Path(__file__), *sorted(FOLDER.glob("*_kernel.py")), *sorted(FOLDER.glob("*_bank.py"))]
SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in KERNELS))
# No fast mathematics: sums keep their order, NaN and infinity their meaning.
OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy", "_nrt": False}

CACHE_LINE = 64


def entry(function: F) -> F:
    """Compile a function that Python calls; cached on disk, releases the GIL."""
    compiled = numba.njit(cache=True, **OPTIONS)(function)
    compiled._cache._cache_file._source_stamp = SOURCES.hexdigest()  # noqa: SLF001 - Numba offers no public way
    return cast(F, compiled)


def piece(function: F) -> F:
    """Compile a small function that is always inlined into those that use it."""
    return cast(F, numba.njit(forceinline=True, **OPTIONS)(function))


def section(function: F) -> F:
    """Compile a function that entry points call."""
    return cast(F, numba.njit(**OPTIONS)(function))


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return zeros that begin at a cache line, where vector loads do not straddle two of them."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    first = -raw.ctypes.data % CACHE_LINE
    return raw[first : first + size].view(dtype).reshape(shape)
