"""The innermost loop of the compiled forest: one tree's exit leaves for a block of rows, in vector registers.

Numba has no vector values: a loop over a block's rows loads and stores their words at every step of a tree. Here the
loop is written in LLVM's own terms, with the words of all rows as one value `<ROWS x lane>` that stays in registers
while a word's steps go by. LLVM splits it into whatever vectors the processor has.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

# Rows a block: their ranks, and one tree's bits, stay in the first-level cache and the registers.
ROWS = 256

INDEX = ir.IntType(64)
ONE = INDEX(1)


def _exit_leaves(
    typing_context: Any,  # noqa: ARG001 - the shape Numba asks for
    ranks: Any,
    column: Any,
    bound: Any,
    mask: Any,
    step_starts: Any,
    first: Any,  # noqa: ARG001 - typed below
    last: Any,  # noqa: ARG001 - typed below
    leaf: Any,
) -> Any:
    """exit_leaves(ranks, column, bound, mask, step_starts, first, last, leaf): the tree with the words first to last-1.

    Reads ranks lane[C, ROWS] and writes leaf lane[ROWS], the number within the tree of the leaf that each row reaches;
    the other arrays are those of `forest_bank.LeafBits`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(position: int) -> Any:
            return context.make_array(signature.args[position])(context, builder, arguments[position]).data

        block = _Block(builder, context.get_data_type(signature.args[0].dtype))
        first_word, last_word = arguments[5], arguments[6]
        word, lowest, number = (cgutils.alloca_once(builder, block.type) for _ in range(3))
        builder.store(block.zeros, lowest)
        builder.store(block.zeros, number)
        # From the last word to the first: what the last assignment leaves is the lowest word with a bit.
        with cgutils.for_range(builder, builder.sub(last_word, first_word)) as loop:
            at = builder.sub(builder.sub(last_word, ONE), loop.index)
            start, end = (
                builder.sext(builder.load(builder.gep(data(4), [place])), INDEX) for place in (at, builder.add(at, ONE))
            )
            builder.store(block.ones, word)
            with cgutils.for_range_slice(builder, start, end, ONE, INDEX) as (step, _):
                row = builder.mul(builder.sext(builder.load(builder.gep(data(1), [step])), INDEX), INDEX(ROWS))
                seen = block.load(builder.gep(data(0), [row]))
                reached = builder.icmp_unsigned(">=", seen, block.splat(builder.load(builder.gep(data(2), [step]))))
                keep = builder.select(reached, block.splat(builder.load(builder.gep(data(3), [step]))), block.ones)
                builder.store(builder.and_(builder.load(word), keep), word)
            bits = builder.load(word)
            alive = builder.icmp_unsigned("!=", bits, block.zeros)
            before = builder.mul(builder.sub(at, first_word), INDEX(block.lane.width))
            builder.store(builder.select(alive, bits, builder.load(lowest)), lowest)
            builder.store(
                builder.select(alive, block.splat(builder.trunc(before, block.lane)), builder.load(number)), number
            )
        within = block.trailing_zeros(builder.load(lowest))
        block.store(builder.add(builder.load(number), within), data(7))
        return context.get_dummy_value()

    arrays = (ranks, column, bound, mask, step_starts)
    return types.void(*arrays, types.int64, types.int64, leaf), generate


class _Block:
    """One lane for each row of a block, as an LLVM vector."""

    def __init__(self, builder: Any, lane: Any) -> None:
        self._builder = builder
        self.lane = lane
        self.type = ir.VectorType(lane, ROWS)
        self.zeros = ir.Constant(self.type, [0] * ROWS)
        self.ones = ir.Constant(self.type, [-1] * ROWS)

    def splat(self, value: Any) -> Any:
        """Return the value in every lane."""
        nothing = ir.Constant(self.type, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), ROWS), [0] * ROWS)
        first = self._builder.insert_element(nothing, value, ir.IntType(32)(0))
        return self._builder.shuffle_vector(first, nothing, everywhere)

    def load(self, address: Any) -> Any:
        """Return the block that begins there, aligned or not."""
        return self._builder.load(self._builder.bitcast(address, self.type.as_pointer()), align=1)

    def store(self, value: Any, address: Any) -> None:
        """Write a block there, aligned or not."""
        self._builder.store(value, self._builder.bitcast(address, self.type.as_pointer()), align=1)

    def trailing_zeros(self, value: Any) -> Any:
        """Return the place of the lowest bit set; every lane has one."""
        kind = ir.FunctionType(self.type, [self.type, ir.IntType(1)])
        name = f"llvm.cttz.v{ROWS}i{self.lane.width}"
        function = cgutils.get_or_insert_function(self._builder.module, kind, name)
        return self._builder.call(function, [value, ir.IntType(1)(1)])


exit_leaves: Any = intrinsic(_exit_leaves)
