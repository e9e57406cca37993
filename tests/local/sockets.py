"""Which addresses a process and its children listen on, as the kernel sees it."""

import ipaddress
from contextlib import suppress
from pathlib import Path

from vector_assets.local import process

_LISTEN = "0A"


def listening(pid: int) -> set[tuple[str, int]]:
    """(address, port) of every listening TCP socket of the process and its descendants."""
    server = process.find(pid)
    assert server is not None
    inodes = {inode for member in (server, *server.descendants()) for inode in _sockets(member.pid)}
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                found.add((_address(address), int(port, 16)))
    return found


def _sockets(pid: int) -> list[str]:
    inodes = []
    # a member of the family, or a file of it, may be gone by now
    with suppress(FileNotFoundError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    inodes.append(target[8:-1])
    return inodes


def _address(hexadecimal: str) -> str:
    """The kernel prints addresses as 32-bit words in the machine's (little-endian) order."""
    words = [hexadecimal[at : at + 8] for at in range(0, len(hexadecimal), 8)]
    return str(ipaddress.ip_address(b"".join(bytes.fromhex(word)[::-1] for word in words)))
