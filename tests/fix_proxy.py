"""A TCP proxy in front of a service, for outages: refused connections, cut ones, lost answers."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

_HOST = "127.0.0.1"


class Proxy:
    """Passes bytes between its own address and a target until told otherwise."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self.target = (target_host, target_port)
        self.swallow_responses = False
        """While true, what the target answers is thrown away: requests arrive, nobody hears of it."""
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.host = _HOST
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        """`host:port`, the same over stops and starts."""
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Take connections (again)."""
        assert self._listener is None, "the proxy runs already"
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._run(self._accept, listener)

    def stop(self) -> None:
        """Refuse new connections and cut the open ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # close alone does not wake a thread in accept
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Cut every open connection; new ones are welcome."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            _shut(*pair)

    def close(self) -> None:
        """Stop for good and wait for every thread."""
        self.stop()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), f"a thread of the proxy to {self.target} does not end"

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                target = socket.create_connection(self.target, timeout=5)
            except OSError:
                client.close()
                continue
            target.settimeout(None)
            self._run(self._serve, listener, client, target)

    def _serve(self, listener: socket.socket, client: socket.socket, target: socket.socket) -> None:
        pair = (client, target)
        with client, target:
            with self._lock:
                self._pairs.add(pair)
            # a stop between accept and here has not seen this pair
            if listener is not self._listener:
                _shut(*pair)
            back = threading.Thread(target=_pump, args=(target, client, lambda: self.swallow_responses), daemon=True)
            back.start()
            _pump(client, target, lambda: False)
            back.join()
            with self._lock:
                self._pairs.discard(pair)


def _pump(source: socket.socket, sink: socket.socket, is_lost: Callable[[], bool]) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if not is_lost():
                sink.sendall(data)
    _shut(source, sink)


def _shut(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy() -> Iterator[Callable[[str, int], Proxy]]:
    """Makes proxies: `proxy(target_host, target_port)`; all are closed after the test."""
    made: list[Proxy] = []

    def make(target_host: str, target_port: int) -> Proxy:
        made.append(Proxy(target_host, target_port))
        return made[-1]

    yield make
    for each in made:
        each.close()
