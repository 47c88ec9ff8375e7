"""Startup and shutdown of the server process; no request or thread can delay the shutdown beyond its time limit."""

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

from hyperformer.core.errors import HyperFormerError
from hyperformer.serving.server.app import configure_uvicorn, create_app
from hyperformer.serving.server.settings import ServerSettings

log = logging.getLogger(__name__)

BACKLOG = 2048
"""Maximum number of connections that wait to be accepted."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE_SECONDS = 0.8
"""Time between the limit of the shutdown and the forced exit, in seconds."""
WORKER_SECONDS = 0.1
"""Time limit of the batch that is running when the server has stopped, in seconds."""


def run(settings: ServerSettings) -> None:
    """Serve until a signal to stop, then finish accepted requests within the time limit.

    Raises:
        HyperFormerError: no task of the folder can be loaded, or the address cannot be bound.
        KeyboardInterrupt: the signal was SIGINT.
    """
    shutdown = Shutdown(settings.shutdown_seconds)
    with bind(settings.host, settings.port) as listener, shutdown.handle_signals():
        app = load_app(settings)
        host, port = listener.getsockname()[:2]
        names = [name for name, (bundle, _) in app.state.registry.index().items() if bundle]
        message = f"{len(names)} tasks at http://{host}:{port}/v2: {', '.join(names)}"
        shutdown.server = _Server(configure_uvicorn(app, settings), message)
        try:
            shutdown.server.run(sockets=[listener])
        finally:
            worker_ended = app.state.batcher.close(drop=True, timeout=WORKER_SECONDS)
        if not worker_ended:  # an inference that does not return would block the exit of the interpreter
            exit_process(shutdown.exit_code)
    if shutdown.signal_number == signal.SIGINT:
        raise KeyboardInterrupt


class Shutdown:
    """Stop a server gracefully at the first signal, by force at a second signal or after the time limit.

    Args:
        seconds: the time limit for finishing accepted requests, in seconds.
    """

    def __init__(self, seconds: float) -> None:
        self.server: uvicorn.Server | None = None
        self.signal_number: int | None = None
        self._watchdog = threading.Timer(seconds + GRACE_SECONDS, self._force_exit)
        self._watchdog.daemon = True

    @property
    def exit_code(self) -> int:
        """The exit code after a single signal: 130 for SIGINT, as in shells, and 0 for other signals."""
        return 128 + signal.SIGINT if self.signal_number == signal.SIGINT else 0

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Handle signals if this is the main thread, as Python requires.

        Signals that the process already ignores, such as SIGHUP under `nohup`, stay ignored.
        """
        handled = SIGNALS if threading.current_thread() is threading.main_thread() else ()
        previous = {number: signal.getsignal(number) for number in handled}
        try:
            for number, handler in previous.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, self.stop)
            yield
        finally:
            self._watchdog.cancel()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def stop(self, number: int, _: FrameType | None) -> None:
        """Start the shutdown, or exit immediately if the server has not started or is already shutting down."""
        if self.signal_number is not None:
            exit_process(128 + number)
        self.signal_number = number
        if self.server is None:
            exit_process(self.exit_code)
        self._watchdog.start()
        self.server.should_exit = True

    def _force_exit(self) -> None:
        log.error("the server did not stop within the time limit; forcing it to exit")
        exit_process(1)


def exit_process(code: int) -> NoReturn:
    """Exit the process immediately, without waiting for its threads."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def load_app(settings: ServerSettings) -> FastAPI:
    """Create the application in a thread, so that the main thread can handle signals while tasks are loaded."""
    future: Future[FastAPI] = Future()

    def work() -> None:
        try:
            future.set_result(create_app(settings))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="load tasks", daemon=True).start()
    return future.result()


class _Server(uvicorn.Server):
    """A uvicorn server that logs a message at startup, and leaves signals to `Shutdown`."""

    def __init__(self, config: uvicorn.Config, message: str) -> None:
        super().__init__(config)
        self._message = message

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the server, and log the message."""
        await super().startup(sockets)
        log.info(self._message)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Install no signal handlers."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; early connections wait until the tasks are loaded.

    Raises:
        HyperFormerError: the address cannot be bound; for example, it is in use, or is not an address of this machine.
    """
    listener = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # before loading tasks, as another process can bind an address until it is listened on
    except (OSError, UnicodeError) as error:
        if listener:
            listener.close()
        reason = getattr(error, "strerror", None) or error
        raise HyperFormerError(f"cannot bind to {host}:{port} ({reason}). Choose another address or port.") from None
    return listener
