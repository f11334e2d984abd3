"""A TCP proxy between one worker and the broker, which can be told to misbehave while it runs.

A thread with an event loop of its own; its public methods may be called from any other. What it does to connections is what
networks do: nothing here knows Kafka's protocol.
Not here: the listener of the broker that names the proxy's port to its clients (config/broker.py).
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable

CHUNK_BYTES = 1 << 16


class _Link:
    """One client's connection: its two sides, and what is still let through."""

    def __init__(self, client: asyncio.StreamWriter, broker: asyncio.StreamWriter):
        self.client = client
        self.broker = broker
        self.left: int | None = None  # bytes until it is cut; None: no limit
        self.answers_lost = False
        self.ended: set[bool] = set()  # directions that were half-closed: True = the answers

    def reset(self) -> None:
        """Close both sides at once, as a machine that restarts does (RST)."""
        for side in (self.client, self.broker):
            with contextlib.suppress(OSError):
                own = side.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            side.close()


class Proxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`.

    Parameters
    ----------
    port, target : int
    """

    def __init__(self, port: int, target: int):
        self.port = port
        self.target = target
        self._links: set[_Link] = set()
        self._delay_s = 0.0
        self._drop_answers = False
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{port}", daemon=True)
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # Faults

    def listen(self, wanted: bool) -> None:
        """Refuse connections, as a machine does on which nothing listens, or take them again."""
        asyncio.run_coroutine_threadsafe(self._listen(wanted), self._loop).result()

    def delay(self, seconds: float) -> None:
        """Hold each chunk up for so long, in both directions; 0 ends it."""
        self._do(lambda: setattr(self, "_delay_s", seconds))

    def cut(self, after_bytes: int) -> None:
        """Reset each connection open now after so many more bytes, of both directions together."""

        def limit() -> None:
            for link in self._links:
                link.left = after_bytes

        self._do(limit)

    def half_close(self, answers: bool) -> None:
        """End one direction of each connection open now: that of the answers, or that of the requests."""

        def end() -> None:
            for link in self._links:
                link.ended.add(answers)
                side = link.client if answers else link.broker
                with contextlib.suppress(OSError):
                    side.write_eof()

        self._do(end)

    def drop_answers(self, dropping: bool) -> None:
        """Swallow what the broker says, while it hears and does all it is asked; at the end the connections are reset."""

        def change() -> None:
            self._drop_answers = dropping
            if not dropping:
                for link in list(self._links):
                    if link.answers_lost:
                        link.reset()

        self._do(change)

    # The thread

    def _do(self, action: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(action)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self._started.set()
        self._loop.run_forever()
        self._server.close()
        for link in list(self._links):
            link.reset()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _listen(self, wanted: bool) -> None:
        if wanted and not self._server.is_serving():
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        elif not wanted:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            answers, broker = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            client.close()
            return
        link = _Link(client, broker)
        self._links.add(link)
        try:
            await asyncio.gather(self._copy(link, reader, broker, False), self._copy(link, answers, client, True))
        finally:
            self._links.discard(link)
            for side in (client, broker):
                side.close()

    async def _copy(self, link: _Link, source: asyncio.StreamReader, target: asyncio.StreamWriter, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if answers in link.ended:
                    continue
                if answers and (self._drop_answers or link.answers_lost):
                    link.answers_lost = True
                    continue
                if link.left is not None:
                    chunk, link.left = chunk[: link.left], link.left - len(chunk)
                target.write(chunk)
                await target.drain()
                if link.left is not None and link.left <= 0:
                    link.reset()
                    return
            if not target.is_closing() and answers not in link.ended:
                target.write_eof()
