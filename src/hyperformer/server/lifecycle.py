"""The life of a server's process: its address, the tasks' opening, and an end that no state can hold up."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from hyperformer.server.app import application, configuration
from hyperformer.server.settings import ServerSettings
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

BACKLOG = 2048  # connections that wait to be taken
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE = 0.8  # seconds after the limit until the process is ended
WORKER_SECONDS = 0.1  # that a batch which nobody waits for may take at the end


def run(settings: ServerSettings) -> None:
    """Serve until a signal says to stop; then answer accepted requests as far as time allows.

    Raises:
        HyperFormerError: the folder holds no task that can be opened, or the port is taken.
        KeyboardInterrupt: the signal was SIGINT.
    """
    ending = Ending(settings.shutdown_seconds)
    with bind(settings.host, settings.port) as bound, ending.handle_signals():
        app = open_application(settings)
        host, port = bound.getsockname()[:2]
        names = [name for name, (bundle, _) in app.state.registry.index().items() if bundle]
        message = f"{len(names)} tasks at http://{host}:{port}/v2: {', '.join(names)}"
        ending.server = _Server(configuration(app, settings), message)
        try:
            ending.server.run(sockets=[bound])
        finally:
            ended = app.state.batcher.close(drop=True, seconds=WORKER_SECONDS)
        if not ended:  # a graph that does not return would hold up the interpreter's end
            leave(ending.code)
    if ending.first == signal.SIGINT:
        raise KeyboardInterrupt


class Ending:
    """Ends a server at the first signal: in good order within the limit, by force soon after it or at the second."""

    def __init__(self, seconds: float) -> None:
        self.server: uvicorn.Server | None = None
        self.first: int | None = None
        self._watchdog = threading.Timer(seconds + GRACE, self._end_by_force)
        self._watchdog.daemon = True

    @property
    def code(self) -> int:
        """The exit code after an end in good order, as a shell expects it."""
        return 128 + signal.SIGINT if self.first == signal.SIGINT else 0

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Handle signals in the main thread, where alone Python can; one that is ignored stays so (`nohup`)."""
        heard = SIGNALS if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.getsignal(number) for number in heard}
        try:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, self.end)
            yield
        finally:
            self._watchdog.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self, number: int, _: FrameType | None) -> None:
        """Begin the end, or leave at once where nothing was accepted yet, or the end has begun."""
        if self.first is not None:
            leave(128 + number)
        self.first = number
        if self.server is None:
            leave(self.code)
        self._watchdog.start()
        self.server.should_exit = True

    def _end_by_force(self) -> None:
        log.error("the server did not end in time; ending it by force")
        leave(1)


def leave(code: int) -> NoReturn:
    """End the process at once, whatever its threads do."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def open_application(settings: ServerSettings) -> FastAPI:
    """Open the tasks in a thread, so that the main thread answers signals meanwhile."""
    future: Future[FastAPI] = Future()

    def work() -> None:
        try:
            future.set_result(application(settings))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="opening", daemon=True).start()
    return future.result()


class _Server(uvicorn.Server):
    """Says where it is once it listens, and leaves signals to `Ending`."""

    def __init__(self, config: uvicorn.Config, message: str) -> None:
        super().__init__(config)
        self._message = message

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log.info(self._message)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """Listen at an address; who connects early waits until the tasks are open.

    Raises:
        HyperFormerError: the address is taken, or none of this machine's.
    """
    bound = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, number)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # now: an address that is only bound can be bound again
    except (OSError, UnicodeError) as error:
        if bound:
            bound.close()
        reason = getattr(error, "strerror", None) or error
        raise HyperFormerError(
            f"{host}:{port} cannot be listened at ({reason}); take another address or port"
        ) from None
    return bound
