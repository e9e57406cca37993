"""The proxy of the tests does to connections what it says."""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.fix_proxy import Proxy

MakeProxy = Callable[[str, int], Proxy]


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while line := self.rfile.readline():
            self.server.seen.append(line)  # type: ignore[attr-defined]
            self.wfile.write(line)


@pytest.fixture
def echo() -> Iterator[socketserver.ThreadingTCPServer]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=5)


def test_bytes_pass_both_ways(proxy: MakeProxy, echo: socketserver.ThreadingTCPServer) -> None:
    with _connect(proxy(*echo.server_address)) as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"hello\n"


def test_a_stopped_proxy_cuts_and_refuses_and_comes_back_on_the_same_port(
    proxy: MakeProxy, echo: socketserver.ThreadingTCPServer
) -> None:
    between = proxy(*echo.server_address)
    with _connect(between) as client:
        client.sendall(b"hello\n")
        client.recv(100)
        between.stop()
        assert client.recv(100) == b""
    with pytest.raises(ConnectionRefusedError):
        _connect(between)
    address = between.address
    between.start()
    assert between.address == address
    with _connect(between) as client:
        client.sendall(b"again\n")
        assert client.recv(100) == b"again\n"


def test_dropped_connections_end_and_new_ones_work(proxy: MakeProxy, echo: socketserver.ThreadingTCPServer) -> None:
    between = proxy(*echo.server_address)
    with _connect(between) as old, _connect(between) as new:
        old.sendall(b"old\n")
        assert old.recv(100) == b"old\n"
        new.sendall(b"new\n")
        assert new.recv(100) == b"new\n"
        between.drop_connections()
        assert (old.recv(100), new.recv(100)) == (b"", b"")
    with _connect(between) as client:
        client.sendall(b"again\n")
        assert client.recv(100) == b"again\n"


def test_a_swallowed_response_was_acted_on(proxy: MakeProxy, echo: socketserver.ThreadingTCPServer) -> None:
    between = proxy(*echo.server_address)
    with _connect(between) as client:
        client.sendall(b"one\n")
        assert client.recv(100) == b"one\n"
        between.swallow_responses = True
        client.sendall(b"two\n")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
    assert echo.seen == [b"one\n", b"two\n"]  # type: ignore[attr-defined]
