"""A network that can be told to be slow, to hang and to break: a TCP proxy between a client and a server."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self

from kafka_server import free_port

CHUNK = 1 << 16


class TcpProxy:
    """Passes bytes between its own port and a server's, on 127.0.0.1, in a thread of its own.

    All may be called from any thread at any time.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port or free_port()
        self.disturbed = 0  # pieces held up and connections broken so far: what a disturbance did
        self._target = 0
        self._delay_secs = 0.0
        self._open = threading.Event()
        self._open.set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()

    def start(self, target: int) -> Self:
        """Listen, and pass on to this port."""
        self._target = target
        self._thread.start()
        self._do(self._listen())
        return self

    def delay(self, secs: float) -> None:
        """Hold every piece of either direction for so long."""
        self._delay_secs = secs

    def hang(self, hanging: bool) -> None:
        """Keep connections and pass nothing, as a network does that drops packets; or go on."""
        self._do(self._set(hanging))

    def cut(self) -> None:
        """Break every connection there is; new ones are taken."""
        self._do(self._cut())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._do(self._cut(server=True))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _set(self, hanging: bool) -> None:
        if hanging:
            self._flowing.clear()
        else:
            self._flowing.set()

    async def _cut(self, *, server: bool = False) -> None:
        if server:
            self._server.close()
            self._flowing.set()
        for writer in list(self._writers):
            self.disturbed += not writer.transport.is_closing()
            writer.transport.abort()
        if server:
            await asyncio.gather(*self._passing, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the server is down: so is the way to it
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for one, other in ((reader, back), (there, writer)):
            task = self._loop.create_task(self._pass(one, other))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on until either side ends; then both have ended."""
        try:
            while piece := await reader.read(CHUNK):
                self.disturbed += bool(self._delay_secs) or not self._flowing.is_set()
                if self._delay_secs:
                    await asyncio.sleep(self._delay_secs)
                await self._flowing.wait()
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()
            self._writers.discard(writer)
