"""Vectors as values in compiled code: sixteen float32, one for each row, and masks that choose between them.

Numba's own loops go through memory between any two steps, and check before each whether arrays overlap. With these few
operations a kernel holds vectors in registers by name; LLVM splits them into whatever the processor has.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

WIDTH = 16

FLOATS = ir.VectorType(ir.FloatType(), WIDTH)
BITS = ir.VectorType(ir.IntType(1), WIDTH)
PACKED = ir.IntType(WIDTH)


class Vector(types.Type):
    """A value that Numba can only pass on."""

    def __init__(self, name: str, content: ir.Type) -> None:
        super().__init__(name)
        self.content = content


@register_model(Vector)
class VectorModel(models.PrimitiveModel):  # type: ignore[misc]  # Numba ships no types
    """A vector is held as LLVM's own."""

    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.content)


LANES = Vector("lanes", FLOATS)
MASK = Vector("mask", BITS)


def _generator(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what Numba calls for the code of (builder, *values) -> value."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001 - Numba's shape
        return function(builder, *arguments)

    return generate


def _of_one(result: Any, takes: Any, function: Callable[..., Any]) -> Any:
    return intrinsic(lambda typing_context, a: (result(takes), _generator(function)))  # noqa: ARG005 - Numba's shape


def _of_two(result: Any, takes: tuple[Any, Any], function: Callable[..., Any]) -> Any:
    return intrinsic(lambda typing_context, a, b: (result(*takes), _generator(function)))  # noqa: ARG005 - Numba's shape


def _of_three(result: Any, takes: tuple[Any, Any, Any], function: Callable[..., Any]) -> Any:
    return intrinsic(lambda typing_context, a, b, c: (result(*takes), _generator(function)))  # noqa: ARG005 - Numba's shape


def _splat(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(FLOATS, ir.Undefined)
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(builder.insert_element(nothing, value, ir.IntType(32)(0)), nothing, everywhere)


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{WIDTH}f32")
    return builder.call(function, [a, b, c])


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), FLOATS.as_pointer())


def _load(typing_context: Any, array: Any, index: Any) -> Any:  # noqa: ARG001 - the shape Numba asks for
    """load(array, index): the lanes that begin at an element of a contiguous float32 array, counted over all axes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *arguments), align=4)

    return LANES(array, types.uint64), generate


def _store(typing_context: Any, array: Any, index: Any, lanes: Any) -> Any:  # noqa: ARG001 - Numba's shape
    """store(array, index, lanes): the counterpart of load."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _address(context, builder, signature.args[0], *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.uint64, LANES), generate


load: Any = intrinsic(_load)
store: Any = intrinsic(_store)
# splat(number): the same in every lane.
splat: Any = _of_one(LANES, types.float32, _splat)
minus: Any = _of_two(LANES, (LANES, LANES), lambda builder, a, b: builder.fsub(a, b))
times: Any = _of_two(LANES, (LANES, LANES), lambda builder, a, b: builder.fmul(a, b))
# fused(a, b, c) = a * b + c, rounded once where the processor can.
fused: Any = _of_three(LANES, (LANES, LANES, LANES), _fused)
# choose(mask, a, b): a where the mask is set, else b.
choose: Any = _of_three(LANES, (MASK, LANES, LANES), lambda builder, m, a, b: builder.select(m, a, b))
# below(a, b): uint16 with a bit for each lane where a < b; unknown(a): where a is NaN.
below: Any = _of_two(
    types.uint16, (LANES, LANES), lambda builder, a, b: builder.bitcast(builder.fcmp_ordered("<", a, b), PACKED)
)
unknown: Any = _of_one(
    types.uint16, LANES, lambda builder, a: builder.bitcast(builder.fcmp_unordered("uno", a, a), PACKED)
)
# mask(bits): the mask of a uint16.
mask: Any = _of_one(MASK, types.uint16, lambda builder, bits: builder.bitcast(bits, BITS))
