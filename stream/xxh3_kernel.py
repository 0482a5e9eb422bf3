"""XXH3, 64 bits, of short texts inside a larger buffer: the hashes of `state.events`, without a Python object for each.

After the algorithm's description by its author, Yann Collet (xxHash, doc/xxhash_spec.md and xxhash.h, version 0.8).
"""

from typing import Any, Final

import numpy as np

from stream.jit import eight_bytes, folded_product, piece, section

__all__ = ["LONGEST", "hash_text"]

#: Bytes of the longest text that is hashed here; longer ones take another way through the algorithm.
LONGEST: Final = 240

# The default secret of the algorithm.
_SECRET: Final = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def _words(first: int, step: int, count: int) -> Any:
    """Return words of the secret, little-endian, uint64[count], the first at a byte and the rest so many bytes on."""
    starts = range(first, first + step * count, step)
    return np.array([int.from_bytes(_SECRET[at : at + 8], "little") for at in starts], np.uint64)


_KEYS: Final = _words(0, 8, 23)  # the secret by words
_ODD_KEYS: Final = _words(3, 8, 16)  # and beginning at its fourth byte, for texts above 128 bytes
_LAST_KEYS: Final = _words(119, 8, 2)

_PRIME64_1: Final = np.uint64(0x9E3779B185EBCA87)
_PRIME64_2: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME64_3: Final = np.uint64(0x165667B19E3779F9)
_PRIME_MX1: Final = np.uint64(0x165667919E3779F9)
_PRIME_MX2: Final = np.uint64(0x9FB21C651E98DF25)
_LOW_32: Final = np.uint64(0xFFFFFFFF)


@section
def hash_text(text: Any, at: int, length: int, seed: np.uint64) -> Any:
    """Return the hash of text[at : at + length], uint8 with PADDING behind it, as xxhash.xxh3_64_intdigest does.

    At most LONGEST bytes; seed: uint64.
    """
    if length > 128:
        return _above_128(text, at, length, seed)
    if length > 16:
        return _to_128(text, at, length, seed)
    size = np.uint64(length)
    if length > 8:
        low = _word(text, at) ^ ((_KEYS[3] ^ _KEYS[4]) + seed)
        high = _word(text, at + length - 8) ^ ((_KEYS[5] ^ _KEYS[6]) - seed)
        return _stir(size + _swapped(low) + high + folded_product(low, high))
    if length > 3:
        mixed = seed ^ (_swapped(seed & _LOW_32) & ~_LOW_32)
        first, last = _word(text, at) & _LOW_32, _word(text, at + length - 4) & _LOW_32
        keyed = (last + (first << np.uint64(32))) ^ ((_KEYS[1] ^ _KEYS[2]) - mixed)
        keyed ^= _rotated(keyed, 49) ^ _rotated(keyed, 24)
        keyed *= _PRIME_MX2
        keyed ^= (keyed >> np.uint64(35)) + size
        keyed *= _PRIME_MX2
        return keyed ^ (keyed >> np.uint64(28))
    if length > 0:
        first, middle, last = np.uint64(text[at]), np.uint64(text[at + (length >> 1)]), np.uint64(text[at + length - 1])
        mixed = (first << np.uint64(16)) | (middle << np.uint64(24)) | last | (size << np.uint64(8))
        return _stir_well(mixed ^ (((_KEYS[0] & _LOW_32) ^ (_KEYS[0] >> np.uint64(32))) + seed))
    return _stir_well(seed ^ _KEYS[7] ^ _KEYS[8])


@piece
def _to_128(text: Any, at: int, length: int, seed: np.uint64) -> np.uint64:
    mixed = np.uint64(length) * _PRIME64_1
    for pair in range((length - 1) >> 5, -1, -1):
        mixed += _block(text, at + 16 * pair, _KEYS[4 * pair], _KEYS[4 * pair + 1], seed)
        mixed += _block(text, at + length - 16 * (pair + 1), _KEYS[4 * pair + 2], _KEYS[4 * pair + 3], seed)
    return _stir(mixed)


@piece
def _above_128(text: Any, at: int, length: int, seed: np.uint64) -> np.uint64:
    mixed = np.uint64(length) * _PRIME64_1
    for block in range(8):
        mixed += _block(text, at + 16 * block, _KEYS[2 * block], _KEYS[2 * block + 1], seed)
    mixed = _stir(mixed)
    for block in range(8, length >> 4):
        mixed += _block(text, at + 16 * block, _ODD_KEYS[2 * block - 16], _ODD_KEYS[2 * block - 15], seed)
    return _stir(mixed + _block(text, at + length - 16, _LAST_KEYS[0], _LAST_KEYS[1], seed))


@piece
def _block(text: Any, at: int, one: np.uint64, other: np.uint64, seed: np.uint64) -> Any:
    return folded_product(_word(text, at) ^ (one + seed), _word(text, at + 8) ^ (other - seed))


@piece
def _stir(mixed: np.uint64) -> np.uint64:
    mixed ^= mixed >> np.uint64(37)
    mixed *= _PRIME_MX1
    return mixed ^ (mixed >> np.uint64(32))


@piece
def _stir_well(mixed: np.uint64) -> np.uint64:
    mixed ^= mixed >> np.uint64(33)
    mixed *= _PRIME64_2
    mixed ^= mixed >> np.uint64(29)
    mixed *= _PRIME64_3
    return mixed ^ (mixed >> np.uint64(32))


@piece
def _word(text: Any, at: int) -> np.uint64:
    return np.uint64(eight_bytes(text, at))


@piece
def _rotated(word: np.uint64, bits: int) -> np.uint64:
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


@piece
def _swapped(word: np.uint64) -> np.uint64:
    """The word with its eight bytes in the other order."""
    swapped = np.uint64(0)
    for byte in range(8):
        swapped |= ((word >> np.uint64(8 * byte)) & np.uint64(0xFF)) << np.uint64(56 - 8 * byte)
    return swapped
