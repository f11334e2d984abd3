"""Makes up records as bytes: good ones, spoilt ones, and what no sender in his right mind would send.

Everything is drawn from the `random.Random` given, so that a seed names an input. Builds upon the records of the parity test.
"""

import json
import random
from functools import cache

from tests.property import test_codec_parity as parity

BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
NOT_TEXT = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf8\x88\x80\x80\x80", b"\x80")
SPACES = ("", "", "", "", " ", "\t", "\n", "\r\n", "  ")
ODD_SPACES = ("\x0b", "\x0c", "\u00a0", "\u2028", "\ufeff", "\x00", "/**/", "//\n", "#\n")
ODD_NUMBERS = (
    "1e0", "10e-1", "1.0", "-0", "-0.0", "01", "+1", "1.", ".5", "0x10", "1_000", "NaN", "-Infinity", "1e400", "-1e400",
    "1e-400", "9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551616", "1" + "0" * 400,
    "0." + "0" * 400 + "1", "1000000000", "1000000001", "253402300799999", "253402300800000", "90.00000000000001",
    "-180.00000000000003", "1E+2", "1e+", "1e", "2.0", "1.2e1", "1.7e12", "1700000000", "946684799999", "1700000000000000",
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "\x00", "\n", "\x7f", "\u00a0", "\u200b", "\u202e", "\ud800", "\udfff", "\U0010ffff", "\ufffe",
    "é" * 128, "é" * 129, "😀" * 128, "x" * 128, "x" * 129, "x" * 5_000, "'", '"', "\\", "../..", "{}", "null", "0",
    "A\u0301", "ﷺ" * 128, "   ", " a", "a ", "\u0378", "\ue000", "\ufdd0", "\u2060", "%", "/", "%2F",
)  # fmt: skip


def odd(rng: random.Random, topic: str) -> bytes:
    """A record of any sort."""
    return rng.choices(MAKERS, WEIGHTS)[0](rng, topic)


def spoilt(rng: random.Random, topic: str) -> bytes:
    """A good record with a few fields and bytes changed, as the parity test makes them."""
    return parity.record(rng, topic)


def rewritten(rng: random.Random, topic: str) -> bytes:
    """A record written in a way that is legal JSON, or nearly: escapes, repeated keys, odd numbers and spaces."""
    value = parity.good(rng, topic)
    while rng.random() < 0.3:
        value = parity.spoil(rng, value)
    return encoded(rng, written(rng, value, rng.choice([0.0, 0.02, 0.2])))


def written(rng: random.Random, value: object, oddness: float) -> str:
    """Write a value as JSON; with the probability given, each part of it oddly."""
    space = rng.choice(SPACES if rng.random() > oddness / 4 else ODD_SPACES)
    if isinstance(value, dict):
        members = [(name, value[name]) for name in value]
        if rng.random() < oddness and members:
            members.insert(rng.randrange(len(members) + 1), (rng.choice(members)[0], rng.choice([None, 1, "A", [], {}])))
        body = [f"{text(rng, name, oddness)}{space}:{space}{written(rng, member, oddness)}" for name, member in members]
        return "{" + space + f"{space},{space}".join(body) + space + "}"
    if isinstance(value, list):
        return "[" + space + f",{space}".join(written(rng, member, oddness) for member in value) + "]"
    if rng.random() < oddness:
        return rng.choice(ODD_NUMBERS) if rng.random() < 0.7 else text(rng, rng.choice(ODD_TEXTS), oddness)
    if isinstance(value, str):
        return text(rng, value, oddness)
    return json.dumps(value)


def text(rng: random.Random, value: str, oddness: float) -> str:
    """Write a text with some of its characters escaped that need not be."""
    if rng.random() >= oddness:
        return json.dumps(value, ensure_ascii=rng.random() < 0.5)
    written = "".join(
        f"\\u{ord(char):04{rng.choice('xX')}}" if ord(char) < 0x10000 and rng.random() < 0.3 else json.dumps(char)[1:-1]
        for char in value
    )
    return f'"{written}"'


def encoded(rng: random.Random, written: str) -> bytes:
    """UTF-8, mostly; lone surrogates become the three bytes that are no UTF-8."""
    if rng.random() < 0.01:
        return written.encode(rng.choice(["utf-16", "utf-32", "utf-7"]), "surrogatepass")
    return written.encode("utf-8", "surrogatepass")


def hacked(rng: random.Random, topic: str) -> bytes:
    """Bytes of records cut, flipped, spliced and glued together."""
    value = rng.choice(samples(topic))
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(value) + 1)
        match rng.randrange(8):
            case 0:
                value = rng.choice(BOMS) + value
            case 1:
                value = value[:at] + rng.choice(NOT_TEXT) + value[at:]
            case 2:
                other = rng.choice(samples(rng.choice(parity.TOPICS)))
                value = value[:at] + other[rng.randrange(len(other)) :]
            case 3:
                value = value + rng.choice([b"\n", b",", b"\0", b" ", b""]) + value
            case 4:
                value = value[:at] + bytes(rng.randrange(1, 40)) + value[at:]
            case 5:
                flipped = bytearray(value)
                for _ in range(min(len(flipped), rng.choice([1, 2, 16]))):
                    flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
                value = bytes(flipped)
            case 6:
                value = parity.mutate(rng, value)
            case _:
                value = parity.replace_token(rng, value)
    return value


@cache
def samples(topic: str) -> list[bytes]:
    """Good records, always the same, for those who change bytes only."""
    rng = random.Random(topic)
    return [plain(rng, topic) for _ in range(300)]


def noise(rng: random.Random, topic: str) -> bytes:
    """Bytes, or JSON's own signs, in no order."""
    size = rng.choice([0, 1, 2, 5, 40, 300])
    if rng.random() < 0.3:
        return rng.randbytes(size)
    return b"".join(rng.choice(parity.SPLICES) for _ in range(size // 2))


def deep(rng: random.Random, topic: str) -> bytes:
    """A record with something nested far down, closed again or not."""
    levels = rng.choice([5, 30, 126, 127, 128, 129, 200, 254, 255, 256, 257, 1_000, 20_000])
    start, end = rng.choice([("[", "]"), ('{"a":', "}"), ('[{"lines":', "}]")])
    nested = start * levels + rng.choice(["1", "null", '"x"', ""]) + end * rng.choice([levels, levels, levels - 1, 0])
    value = parity.good(rng, topic)
    name = rng.choice([*value, "note", "lines", "destination"])
    return json.dumps(value | {name: "@"}).replace('"@"', nested).encode()


def long(rng: random.Random, topic: str) -> bytes:
    """A record with a text, a number or a list that is far too long, or a name nobody knows that is."""
    size = rng.choice([1_000, 10_000, 100_000])
    big = rng.choice(["x" * size, "\\u0041" * (size // 6), "é" * size, "😀" * (size // 4)])
    member = rng.choice([f'"{big}"', "9" * size, "[" + "1," * size + "1]", "-" + "0" * size, "0." + "3" * size])
    value = parity.good(rng, topic)
    name = rng.choice([*value, "note", big.replace("\\", "")])
    return json.dumps(value | {name: "@"}, ensure_ascii=False).replace('"@"', member).encode()


def wide(rng: random.Random, topic: str) -> bytes:
    """An order or answer of about as many lines as it may have, or many more; other records with as many names."""
    count = rng.choice([999, 1_000, 1_001, 3_000])
    value = parity.good(rng, topic)
    if topic == "orders.v1" and "lines" in value:
        value["lines"] = [{"line_id": f"l{i}", "sku": f"s{i % 7}", "quantity": 1} for i in range(count)]
        if rng.random() < 0.3:
            value["lines"][rng.randrange(count)] = value["lines"][rng.randrange(count)]
    elif topic == "orders.v1":
        value["line_ids"] = [f"l{i}" for i in range(count)]
    elif topic == "fulfilments.v1":
        value["lines"] = [{"line_id": f"l{i}", "quantity": 1} for i in range(count)]
    else:
        value |= {f"n{i}": i for i in range(count)}
    return json.dumps(value).encode()


def plain(rng: random.Random, topic: str) -> bytes:
    """A good record."""
    return parity.render(rng, parity.good(rng, topic))


MAKERS = (spoilt, rewritten, hacked, noise, plain, deep, long, wide)
WEIGHTS = (20, 20, 45, 8, 5, 1.6, 0.2, 0.2)
