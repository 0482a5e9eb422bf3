"""How the kernels of this package are compiled: as state's are, stamped with the sources of all of this package's."""

from pathlib import Path
from typing import Any, Final

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from state import kernel_jit
from state.kernel_jit import eight_bytes, piece, section, stamped

__all__ = ["PADDING", "eight_bytes", "entry", "folded_product", "piece", "section"]

#: Zeros behind a buffer that a kernel reads by words.
PADDING: Final = bytes(16)

# This file and state's too: what they define is compiled into every kernel.
entry = stamped([Path(kernel_jit.__file__), Path(__file__), *sorted(Path(__file__).parent.glob("*_kernel.py"))])


def _folded_product(typing_context: Any, one: Any, other: Any) -> Any:  # noqa: ARG001 - the shape Numba asks for
    """folded_product(one, other): both halves of the 128-bit product of two uint64, combined by exclusive or."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001 - likewise
        wide, word = ir.IntType(128), ir.IntType(64)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), word)
        return builder.xor(builder.trunc(product, word), high)

    return types.uint64(types.uint64, types.uint64), generate


folded_product: Any = intrinsic(_folded_product)
