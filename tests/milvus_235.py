"""Runs Milvus 2.3.5 inside a network namespace of its own and forwards connections from outside to it.

`unshare -n python tests/milvus_235.py FOLDER FD`. Whatever its configuration says, that server listens on every
address, which is harmless where there is only a loopback device. FD is a listening socket of the caller: a socket
belongs to the namespace it was made in, so what it accepts comes from the caller's loopback. Ends with its standard
input.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x41
_SETTINGS = {
    "common.security.authorizationEnabled": "true",
    # limits of single collections apply then; the server's own stay off
    "quotaAndLimits.dml.enabled": "true",
}


def main(folder: str, descriptor: int) -> None:
    _raise_loopback()
    port, server = _start(Path(folder))
    listener = socket.socket(fileno=descriptor)
    threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
    try:
        sys.stdin.buffer.read()
    finally:
        server.kill()
        server.wait()


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        fcntl.ioctl(device, _SIOCSIFFLAGS, struct.pack("16sh14s", b"lo", _IFF_UP_RUNNING, b""))


def _start(folder: Path) -> tuple[int, subprocess.Popen[bytes]]:
    from milvus import MilvusServer, MilvusServerConfig, _initialize_data_files

    config = MilvusServerConfig()
    server = MilvusServer(config, wait_for_started=False)
    server.set_base_dir(str(folder))
    for name, value in _SETTINGS.items():
        config.set(name, value)
    config.resolve()
    _initialize_data_files(str(folder))
    environment = {
        **os.environ,
        "DEPLOY_MODE": "STANDALONE",
        "LD_LIBRARY_PATH": str(folder / "bin"),
        "MILVUS_RUN_DIR": str(folder / "run"),
    }
    with (folder / "milvus.log").open("wb") as log:
        arguments = [str(folder / "bin" / "milvus"), "run", "standalone"]
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environment
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    return server.listen_port, process


def _accept(listener: socket.socket, port: int) -> None:
    while True:
        client, _ = listener.accept()
        try:
            target = socket.create_connection((HOST, port), timeout=5)
        except OSError:
            client.close()
            continue
        target.settimeout(None)
        for pair in ((client, target), (target, client)):
            threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
