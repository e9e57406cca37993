"""A real schema registry for tests: `registry` shared by the session, `own_registry` to be stopped, or with users."""

import itertools
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import urllib3

from tests.fix_services import start
from vector_assets.local.schema_registry import SchemaRegistryService

_numbers = itertools.count()


class Registry:
    """One registry and what tests do with it."""

    def __init__(self, service: SchemaRegistryService) -> None:
        self.service = service
        self.url = service.url

    def ask(self, method: str, path: str, body: object = None, user: str | None = None) -> tuple[int, object]:
        """Status and answer of a request."""
        headers = urllib3.make_headers(basic_auth=user) if user else {}
        answer = urllib3.request(method, self.url + path, json=body, headers=headers, retries=False, timeout=10)
        return answer.status, answer.json()

    def register(self, schema: object, subject: str | None = None, user: str | None = None, **more: object) -> int:
        """The id of a schema, registered under a fresh subject unless one is given."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        path = f"/subjects/{subject or self.fresh_subject()}/versions"
        status, answer = self.ask("POST", path, {"schema": text, **more}, user)
        assert status == 200, answer
        return answer["id"]

    def fresh_subject(self) -> str:
        return f"subject_{next(_numbers)}-value"


def framed(number: int, value: bytes) -> bytes:
    """A value as serializers write it: 0, the id of its schema, the value."""
    return b"\0" + struct.pack(">i", number) + value


@pytest.fixture(scope="session")
def registry(services_home: Path) -> Iterator[Registry]:
    """The session's registry. Do not stop it."""
    service = SchemaRegistryService(services_home / "registry")
    start(service)
    yield Registry(service)
    service.erase()


@pytest.fixture
def own_registry(services_home: Path) -> Iterator[Callable[..., Registry]]:
    """Makes throwaway registries: `own_registry(users)`."""
    services: list[SchemaRegistryService] = []

    def make(users: Mapping[str, str] | None = None) -> Registry:
        service = SchemaRegistryService(services_home / f"own_registry_{next(_numbers)}", users)
        services.append(service)
        start(service)
        return Registry(service)

    yield make
    for service in services:
        service.erase()
