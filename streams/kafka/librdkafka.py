"""`produce_spans`: messages that lie in one buffer, handed to librdkafka in one call, without a Python object for each.

confluent-kafka's own way makes a dict, two bytes objects and an entry of a list per message, with the GIL held: 2 to 4 µs
beside librdkafka's own 1. This calls the same function of the same library, `rd_kafka_produce_batch` [1], on the producer's
handle, which confluent-kafka keeps as the first field of its object. `handle_of` proves that it is one before it is used.

[1] https://github.com/confluentinc/librdkafka/blob/v2.16.0/src/rdkafka.h
"""

import ctypes
from functools import cache
from pathlib import Path

import confluent_kafka
import numpy as np
from confluent_kafka import KafkaError, KafkaException, Producer

_COPY = 0x2  # RD_KAFKA_MSG_F_COPY: the buffer is ours again when the call is over
# rd_kafka_message_t, as a C compiler lays it out.
_MESSAGE = np.dtype(
    [
        ("err", np.intc),
        ("topic", np.uintp),
        ("partition", np.int32),
        ("value", np.uintp),
        ("value_size", np.uintp),
        ("key", np.uintp),
        ("key_size", np.uintp),
        ("offset", np.int64),
        ("opaque", np.uintp),
    ],
    align=True,
)


@cache
def _library() -> ctypes.CDLL:
    """Open the librdkafka that confluent-kafka has loaded, of all there may be on the machine."""
    package = Path(confluent_kafka.__file__).parent
    # Where wheels for Linux and for macOS carry it.
    places = [*package.with_name("confluent_kafka.libs").glob("librdkafka*.so*"), *package.glob(".dylibs/librdkafka*")]
    library = ctypes.CDLL(str(places[0]) if places else "librdkafka.so.1")
    library.rd_kafka_version.restype = ctypes.c_int
    if library.rd_kafka_version() != confluent_kafka.libversion()[1]:
        raise ImportError(
            f"expected the librdkafka that confluent-kafka uses, {confluent_kafka.libversion()[0]}, found version "
            f"{library.rd_kafka_version():#x} as {library._name}; install confluent-kafka's wheel from PyPI"
        )
    library.rd_kafka_name.restype = ctypes.c_char_p
    library.rd_kafka_name.argtypes = [ctypes.c_void_p]
    library.rd_kafka_topic_new.restype = ctypes.c_void_p
    library.rd_kafka_topic_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    library.rd_kafka_topic_destroy.restype = None
    library.rd_kafka_topic_destroy.argtypes = [ctypes.c_void_p]
    library.rd_kafka_produce_batch.restype = ctypes.c_int
    library.rd_kafka_produce_batch.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    return library


def handle_of(producer: Producer, client_id: str) -> int:
    """Give a producer's `rd_kafka_t *`.

    Parameters
    ----------
    producer : confluent_kafka.Producer
    client_id : str
        Its `client.id`, with which librdkafka's name for it must begin.

    Raises
    ------
    ImportError
        Something else stands where the handle is expected: another confluent-kafka than this was written for.
    """
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__).value
    name = (handle and _library().rd_kafka_name(handle)) or b""
    if not name.startswith(client_id.encode() + b"#producer-"):
        raise ImportError(
            f"expected the handle of {client_id!r} in the Producer of confluent-kafka {confluent_kafka.__version__}, "
            f"found {name!r}; install the version in config/constraints.txt"
        )
    assert handle is not None, "it has a name"
    return handle


def produce_spans(handle: int, topic: str, partition: int, buffer: np.ndarray, spans: np.ndarray) -> None:
    """Enqueue messages in order.

    Parameters
    ----------
    handle : int
        Of `handle_of`; its producer lives on.
    topic, partition
        Where to.
    buffer : uint8[]
        The messages' bytes.
    spans : int64[n, 3]
        Where in it each message's key begins (-1: no key), its value begins (-1: no value), and it ends.

    Raises
    ------
    KafkaException
        A message was not accepted; of those behind it some may have been.
    """
    library = _library()
    messages = np.zeros(len(spans), _MESSAGE)
    key, value, end = spans.T
    at = buffer.ctypes.data
    key_end = np.where(value < 0, end, value)
    messages["value"], messages["value_size"] = np.where(value < 0, 0, at + value), end - key_end
    messages["key"], messages["key_size"] = np.where(key < 0, 0, at + key), np.where(key < 0, 0, key_end - key)
    reference = library.rd_kafka_topic_new(handle, topic.encode(), None)
    if not reference:
        raise KafkaException(KafkaError(KafkaError._FAIL, f"librdkafka has no topic {topic}"))
    try:
        taken = library.rd_kafka_produce_batch(reference, partition, _COPY, messages.ctypes.data, len(messages))
    finally:
        library.rd_kafka_topic_destroy(reference)
    if taken < len(messages):
        codes = messages["err"]
        raise KafkaException(KafkaError(int(codes[codes != 0][0])))
