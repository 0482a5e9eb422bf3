"""Texts inside a buffer have the hashes that the xxhash library gives them."""

import random

import numpy as np
import xxhash

from state.events import FIELD_SEED, TRANSACTION_SEED
from stream.jit import PADDING, entry
from stream.xxh3_kernel import LONGEST, hash_text

SEEDS = (0, 1, TRANSACTION_SEED, FIELD_SEED, FIELD_SEED + 7, (1 << 64) - 1)


@entry
def hashed(text, at, length, seed):
    return hash_text(text, at, length, seed)


def test_every_length_at_every_alignment_has_the_library_s_hash():
    rng = random.Random(5)
    for length in range(LONGEST + 1):
        for seed in SEEDS:
            at = rng.randrange(16)
            raw = rng.randbytes(at + length)
            text = np.frombuffer(raw + PADDING, np.uint8)
            assert hashed(text, at, length, np.uint64(seed)) == xxhash.xxh3_64_intdigest(raw[at:], seed=seed), length
