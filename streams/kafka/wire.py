"""One connection to a broker: requests out, answers in, one at a time. Layouts are `kio`'s, made from Kafka's own definitions.

Owner: the thread that made it. A call blocks until its answer is there, or its time is over.
Invariants: an answer is its request's own (the correlation id is checked); after any failure the connection is closed, so that
a late answer is never taken for another's.
Not here: which broker is asked (direct.py), what an error code means (direct.py).
"""

import io
import socket
import struct
import time
from functools import cache
from typing import Any

from kio.schema.api_versions.v3.request import ApiVersionsRequest
from kio.schema.api_versions.v3.response import ApiVersionsResponse
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer
from kio.static.primitive import i32

from topics.errors import NoBroker

_SIZE = struct.Struct(">i")
_LONGEST_ANSWER = 64 << 20
_NAME = "nearshelf"
TRANSACTION_VERSION = "transaction.version"


class Disconnected(NoBroker):
    """No answer: the connection could not be made, was lost or silent too long. The broker may have done what it was asked."""


@cache
def _layout(request: Any, response: Any) -> tuple[Any, Any, Any, Any]:
    """Give the writers of a request's header and body, the readers of its answer's header and body."""
    return (
        entity_writer(request.__header_schema__),
        entity_writer(request),
        entity_reader(response.__header_schema__),
        entity_reader(response),
    )


class Connection:
    """A connection to one broker.

    Parameters
    ----------
    host, port
        Of the broker.
    client_id : str
        Named in each request; brokers log it.
    timeout_s : float
        To connect, and to learn what the broker speaks.

    Raises
    ------
    Disconnected
        Nobody answers there.
    """

    def __init__(self, host: str, port: int, client_id: str, timeout_s: float):
        self._client_id = client_id
        self._name = f"{host}:{port}"
        self._correlation = 0
        try:
            self._socket = socket.create_connection((host, port), timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise Disconnected(f"{self._name}: {error}") from error
        answer = self.call(
            ApiVersionsRequest(client_software_name=_NAME, client_software_version="1"), ApiVersionsResponse, timeout_s
        )
        if answer.error_code is not ErrorCode.none:
            self.close()
            raise Disconnected(f"{self._name}: ApiVersions: {answer.error_code.name}")
        self.versions: dict[int, tuple[int, int]] = {
            each.api_key: (each.min_version, each.max_version) for each in answer.api_keys
        }
        """Request's key → the lowest and highest version the broker speaks."""
        self.features: dict[str, int] = {each.name: each.max_version_level for each in answer.finalized_features}
        """Feature → level that the cluster has agreed on."""

    def speaks(self, request: Any) -> bool:
        """Whether the broker knows this version of a request."""
        low, high = self.versions.get(request.__api_key__, (0, -1))
        return low <= request.__version__ <= high

    def call(self, request: Any, response: type, timeout_s: float) -> Any:
        """Ask, and give the answer.

        Raises
        ------
        Disconnected
            No answer within `timeout_s`, or none that is this request's.
        """
        header_out, body_out, header_in, body_in = _layout(request.__class__, response)
        self._correlation = (self._correlation + 1) & 0x7FFFFFFF
        out = io.BytesIO()
        out.write(b"\0\0\0\0")
        header_out(
            out,
            type(request).__header_schema__(
                request_api_key=request.__api_key__,
                request_api_version=request.__version__,
                correlation_id=i32(self._correlation),
                client_id=self._client_id,
            ),
        )
        body_out(out, request)
        content = out.getbuffer()
        _SIZE.pack_into(content, 0, len(content) - _SIZE.size)
        deadline = time.monotonic() + timeout_s
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(content)
            (size,) = _SIZE.unpack(self._receive(_SIZE.size, deadline))
            if not 0 < size <= _LONGEST_ANSWER:
                raise OSError(f"expected an answer of up to {_LONGEST_ANSWER} bytes, found {size}")
            answer = self._receive(size, deadline)
            header, at = header_in(answer, 0)
            if header.correlation_id != self._correlation:
                raise OSError(f"expected the answer to request {self._correlation}, found {header.correlation_id}'s")
            return body_in(answer, at)[0]
        except OSError as error:
            self.close()
            raise Disconnected(f"{self._name}: {type(request).__name__}: {error or type(error).__name__}") from error
        except Exception as error:  # a layout that is none: what else comes can't be read either
            self.close()
            raise Disconnected(f"{self._name}: {type(request).__name__}: its answer can't be read: {error!r}") from error

    @property
    def closed(self) -> bool:
        """Whether it can't be used any more."""
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Hang up; what is asked from now on fails."""
        self._socket.close()

    def _receive(self, size: int, deadline: float) -> bytes:
        content = bytearray(size)
        view, at = memoryview(content), 0
        while at < size:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            count = self._socket.recv_into(view[at:])
            if not count:
                raise OSError("the broker hung up")
            at += count
        return bytes(content)
