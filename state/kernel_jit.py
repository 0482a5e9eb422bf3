"""How the kernels are compiled, and the instructions Numba has no name for.

An entry point is compiled once for its one signature and cached; the pieces it is made of are inlined into it. Numba's
cache looks only at the entry point's own file, so an edit of a piece would go unseen: here an entry is stamped with
the sources of all kernels instead.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import cgutils, types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

# Division by zero gives infinity or NaN as in NumPy: a check and its exception would cost more than the division.
OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy", "_nrt": False}


def stamped(sources: Iterable[Path]) -> Callable[[F], F]:
    """Return what compiles a function that Python calls; cached on disk until one of the sources changes."""
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()

    def compile_entry(function: F) -> F:
        """Compile a function that Python calls; cached on disk, releases the GIL."""
        compiled = numba.njit(cache=True, **OPTIONS)(function)
        compiled._cache._cache_file._source_stamp = stamp  # noqa: SLF001 - Numba offers no public way
        return cast(F, compiled)

    return compile_entry


entry = stamped(sorted(Path(__file__).parent.glob("kernel*.py")))


def piece(function: F) -> F:
    """Compile a small function that is always inlined into the entry points that use it."""
    return cast(F, numba.njit(forceinline=True, **OPTIONS)(function))


def section(function: F) -> F:
    """Compile a longer function that entry points call; it is off the path of an ordinary event."""
    return cast(F, numba.njit(**OPTIONS)(function))


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:  # noqa: ARG001 - the shape Numba asks for
    """prefetch(array, index): start fetching that element's cache line for a later read or write."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir  # noqa: PLC0415 - only while compiling

        array_type, _ = signature.args
        data = context.make_array(array_type)(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        bits = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, bits, bits, bits])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, bits(1), bits(3), bits(1)])  # for writing, keep it close, data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _eight_bytes(typing_context: Any, array: Any, index: Any) -> Any:  # noqa: ARG001 - the shape Numba asks for
    """eight_bytes(array, index): the little-endian word at a byte of a uint8 array, aligned or not."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir  # noqa: PLC0415 - only while compiling

        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(address, align=1)

    return types.int64(array, types.int64), generate


def _equal(builder: Any, data: Any, index: Any, value: Any, bits: int, count: int) -> Any:
    """Generate the comparison of `count` elements of so many bits with a value: a word with one bit for each."""
    from llvmlite import ir  # noqa: PLC0415 - only while compiling

    vector, element, number = ir.VectorType(ir.IntType(bits), count), ir.IntType(bits), ir.IntType(32)
    address = builder.bitcast(builder.gep(data, [index]), vector.as_pointer())
    wanted = builder.insert_element(ir.Constant(vector, ir.Undefined), builder.trunc(value, element), number(0))
    wanted = builder.shuffle_vector(wanted, wanted, ir.Constant(ir.VectorType(number, count), [0] * count))
    equal = builder.icmp_unsigned("==", builder.load(address, align=bits // 8), wanted)
    return builder.zext(builder.bitcast(equal, ir.IntType(count)), ir.IntType(64))


def _equal_quarters(typing_context: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ARG001 - as Numba asks
    """equal_quarters(array, index, value): which of the 32 elements of a uint16 array from an index on are equal to it.

    One bit each, the first the lowest.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return _equal(builder, data, arguments[1], arguments[2], 16, 32)

    return types.int64(array, types.int64, types.int64), generate


def _equal_bytes(typing_context: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ARG001 - as Numba asks
    """equal_bytes(array, index, value): the same of the 64 elements of a uint8 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return _equal(builder, data, arguments[1], arguments[2], 8, 64)

    return types.int64(array, types.int64, types.int64), generate


def _lowest_bit(typing_context: Any, value: Any) -> Any:  # noqa: ARG001 - the shape Numba asks for
    """lowest_bit(value): the number of a word's lowest bit that is set; there must be one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        from llvmlite import ir  # noqa: PLC0415 - only while compiling

        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.int64), generate


def _move_words(typing_context: Any, array: Any, target: Any, source: Any, count: Any) -> Any:  # noqa: ARG001
    """move_words(array, target, source, count): copy elements of an int64 array; the two places may overlap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        places = (builder.gep(data, [place]) for place in arguments[1:3])
        cgutils.raw_memmove(builder, *places, arguments[3], 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64), generate


prefetch: Any = intrinsic(_prefetch)
eight_bytes: Any = intrinsic(_eight_bytes)
equal_quarters: Any = intrinsic(_equal_quarters)
equal_bytes: Any = intrinsic(_equal_bytes)
move_words: Any = intrinsic(_move_words)
lowest_bit = cast(Callable[[int], int], intrinsic(_lowest_bit))
