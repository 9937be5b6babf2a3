"""The sums of the library by which `_sopin_check` sees that its file is as it was installed.

    library_sums.py LIBRARY     prints the text of libsopin.sums, the file beside the library

The text has the size, the CRC-32, and for each algorithm that CPython has used in
`_imp.source_hash` what `_sopin_check.quick_sum` makes of the file by it. That function is part of
every CPython; a module with another sum is often a shared object, which takes longer to load than
all that is done with it.
"""

import struct
import sys
import zlib
from pathlib import Path

# Bytes that are hashed at once, as in _sopin_check.
BLOCK = 1 << 16
_MASK = (1 << 64) - 1


def siphash(key, content, compressions, finalizations):
    """Returns SipHash-C-D as 8 bytes, as `_imp.source_hash` does (Python/pyhash.c): the second
    half of its key is 0. CPython has used SipHash-2-4, and since 3.11 it uses SipHash-1-3."""
    a, b, c, d = (key ^ 0x736F6D6570736575, 0x646F72616E646F6D, key ^ 0x6C7967656E657261, 0x7465646279746573)
    padded = content + bytes(7 - len(content) % 8) + bytes([len(content) & 0xFF])
    words = [word for (word,) in struct.iter_unpack("<Q", padded)]
    for word, rounds in [(word, compressions) for word in words] + [(None, finalizations)]:
        if word is None:
            c ^= 0xFF
        else:
            d ^= word
        for _ in range(rounds):
            a = (a + b) & _MASK
            b = ((b << 13 | b >> 51) & _MASK) ^ a
            a = (a << 32 | a >> 32) & _MASK
            c = (c + d) & _MASK
            d = ((d << 16 | d >> 48) & _MASK) ^ c
            a = (a + d) & _MASK
            d = ((d << 21 | d >> 43) & _MASK) ^ a
            c = (c + b) & _MASK
            b = ((b << 17 | b >> 47) & _MASK) ^ c
            c = (c << 32 | c >> 32) & _MASK
        if word is not None:
            a ^= word
    return (a ^ b ^ c ^ d).to_bytes(8, "little")


def quick_sum(content, compressions, finalizations):
    """Does the same as `_sopin_check.quick_sum`, whose key for a block is made of the sum so far."""
    total = 0
    for start in range(0, len(content), BLOCK):
        block = content[start : start + BLOCK]
        total = int.from_bytes(siphash(total >> 1, block, compressions, finalizations), "little")
    return total


def text(content):
    """Returns the text of the file."""
    quick = (quick_sum(content, *rounds) for rounds in ((1, 3), (2, 4)))
    return " ".join([str(len(content)), f"{zlib.crc32(content):08x}", *(f"{total:016x}" for total in quick)]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text(Path(sys.argv[1]).read_bytes()))
