"""Ports are chosen once and kept."""

import socket
from pathlib import Path

from vector_assets.local import ports


def test_ports_are_kept_while_they_are_free(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = ports.assign(file, ["client", "controller"])
    assert len(set(first.values())) == 2
    assert ports.assign(file, ["client", "controller"]) == first


def test_a_port_that_somebody_took_is_replaced_and_the_other_kept(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = ports.assign(file, ["client", "controller"])
    with socket.create_server((ports.HOST, first["client"])):
        second = ports.assign(file, ["client", "controller"])
    assert second["client"] != first["client"]
    assert second["controller"] == first["controller"]
    assert ports.load(file) == second
