"""TCP ports of local services: chosen once, kept while they stay free."""

import json
import random
import socket
from collections.abc import Collection
from pathlib import Path

HOST = "127.0.0.1"
"""Local services listen here and nowhere else."""

_RANGE = range(15_000, 30_000)
"""Below the ports that systems hand to outgoing connections, which would otherwise take a stopped service's port."""

_random = random.SystemRandom()


def is_free(port: int) -> bool:
    """True when nobody listens on the port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # a closed listener's old connections (TIME_WAIT) do not make the port taken
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def choose(taken: Collection[int] = ()) -> int:
    """A free port that is none of `taken`."""
    while True:
        port = _random.choice(_RANGE)
        if port not in taken and is_free(port):
            return port


def load(file: Path) -> dict[str, int]:
    """The ports saved in `file`; empty when there is none."""
    if not file.exists():
        return {}
    return {str(name): int(port) for name, port in json.loads(file.read_text()).items()}


def assign(file: Path, names: Collection[str]) -> dict[str, int]:
    """A free port per name, the saved one where it is still free; saved for the next time."""
    saved = load(file)
    ports: dict[str, int] = {}
    for name in names:
        port = saved.get(name)
        ports[name] = port if port is not None and is_free(port) else choose(ports.values())
    if ports != saved:
        file.write_text(json.dumps(ports))
    return ports
