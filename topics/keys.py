"""Keys: how one is made of several parts, and which partition its records lie in (Java's default partitioner, no Kafka client).

librdkafka does the same with `partitioner=murmur2_random`.
Not here: which topic is keyed by what (catalogue.py), the kernel that writes keys (codec/put.py).
"""

from functools import lru_cache

_MASK = 0xFFFFFFFF


@lru_cache(10_000)
def murmur2(data: bytes) -> int:
    """Hash a key as Kafka's Java client does: MurmurHash2 (A. Appleby, 2008), seed 0x9747b28c, unsigned 32 bits.

    Examples
    --------
    >>> murmur2(b"foobar") - (1 << 32)
    -790332482
    """
    m = 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & _MASK
        h = (h * m ^ (k ^ k >> 24) * m) & _MASK
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & _MASK
    h = (h ^ h >> 13) * m & _MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Give the partition of a key, of so many.

    Examples
    --------
    >>> partition_of(b"uk", 1)
    0
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def compound_key(*parts: str) -> str:
    """Join parts to a key that no other parts have: `%` and `/` inside a part are written `%25` and `%2F`.

    Examples
    --------
    >>> compound_key("WH", "S1/X"), compound_key("WH/S1", "X"), compound_key("100%", "a")
    ('WH/S1%2FX', 'WH%2FS1/X', '100%25/a')
    """
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)
