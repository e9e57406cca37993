"""A real local MaxCompute server for tests: `maxcompute` shared by the session, `own_maxcompute` to be stopped."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fix_services import start
from vector_assets.local.maxcompute.service import PROJECT, MaxComputeService

_numbers = itertools.count()


class MaxCompute:
    """One server and what tests do with it; `odps` is plain pyodps."""

    def __init__(self, service: MaxComputeService) -> None:
        self.service = service
        self.odps = self.client()

    def client(self, **changes: Any) -> Any:
        """A pyodps entry; its project has two tiers unless another one is given."""
        from odps import ODPS, options

        options.tunnel.use_instance_tunnel = True
        given = {
            "access_id": self.service.access_id,
            "secret_access_key": self.service.access_key,
            "project": PROJECT,
            "endpoint": self.service.endpoint,
            "overwrite_global": False,
            **changes,
        }
        return ODPS(**given)

    def fresh_name(self, base: str = "t") -> str:
        """A table name nobody else has."""
        return f"{base}_{next(_numbers)}"

    def sql(self, text: str, odps: Any = None, **more: Any) -> Any:
        """Run a statement to its end; the instance."""
        return (odps or self.odps).execute_sql(text, **more)

    def rows(self, text: str, odps: Any = None) -> list[list[Any]]:
        """The rows of a SELECT, by the instance tunnel."""
        with self.sql(text, odps).open_reader(tunnel=True) as reader:
            return [list(record.values) for record in reader]

    def table(self, columns: str, more: str = "", odps: Any = None) -> Any:
        """A fresh table."""
        name = self.fresh_name()
        self.sql(f"CREATE TABLE {name} ({columns}) {more}", odps)
        return (odps or self.odps).get_table(name)

    def tunnel(self, odps: Any = None, **more: Any) -> Any:
        """A table tunnel of its own."""
        from odps.tunnel import TableTunnel

        return TableTunnel(odps or self.odps, **more)

    def fault(self, **rule: Any) -> None:
        """Set a rule of `vector_assets.local.maxcompute.faults.Rule`."""
        self.service.ask("POST", "faults", rule)

    def hits(self) -> list[int]:
        """How often each rule was used."""
        return [rule["hits"] for rule in self.service.ask("GET", "faults")["rules"]]


@pytest.fixture(scope="session")
def maxcompute_server(services_home: Path) -> Iterator[MaxCompute]:
    """The session's server. Do not stop it."""
    service = MaxComputeService(services_home / "maxcompute")
    start(service)
    service.ask("POST", "projects", {"name": "tiers", "schemas": True})
    yield MaxCompute(service)
    service.erase()


@pytest.fixture
def maxcompute(maxcompute_server: MaxCompute) -> Iterator[MaxCompute]:
    """The session's server, without the faults that a test set."""
    yield maxcompute_server
    maxcompute_server.service.ask("DELETE", "faults")
    maxcompute_server.service.ask("POST", "sessions", {"ttl_s": None})


@pytest.fixture
def own_maxcompute(services_home: Path) -> Iterator[Callable[[], MaxCompute]]:
    """Makes throwaway servers."""
    services: list[MaxComputeService] = []

    def make() -> MaxCompute:
        service = MaxComputeService(services_home / f"own_maxcompute_{next(_numbers)}")
        services.append(service)
        start(service)
        return MaxCompute(service)

    yield make
    for service in services:
        service.erase()
