"""A real local embedding service for tests: `embeddings` shared by the session, `own_embeddings` to be stopped."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3

from tests.fix_services import start
from vector_assets.local.embeddings import EmbeddingsService

_numbers = itertools.count()


class Embeddings:
    """One server and what tests do with it."""

    def __init__(self, service: EmbeddingsService) -> None:
        self.service = service
        self.url = service.url
        self.api_key = service.api_key

    def post(self, body: object, *, key: str | None = None, path: str = "embeddings") -> tuple[int, Any, Any]:
        """Status, answer and headers of a request for vectors."""
        headers = {"Authorization": f"Bearer {self.api_key if key is None else key}"}
        answer = urllib3.request(
            "POST", f"{self.url}/{path}", json=body, headers=headers, retries=False, timeout=30, decode_content=True
        )
        return answer.status, answer.json(), answer.headers

    def vectors(self, texts: list[str], model: str = "text-embedding-v4", **more: Any) -> Any:
        """The vectors of texts as an array (float32)."""
        status, answer, _ = self.post({"model": model, "input": texts, **more})
        assert status == 200, answer
        return np.array([row["embedding"] for row in answer["data"]], dtype=np.float32)

    def fault(self, **rule: Any) -> None:
        """Set a rule of `vector_assets.local.embeddings_faults.Rule`."""
        self.service.ask("POST", "faults", rule)

    def limit(self, **limits: Any) -> None:
        """Set some of `vector_assets.local.embeddings_faults.Limits`."""
        self.service.ask("POST", "limits", limits)

    def hits(self) -> list[int]:
        """How often each rule was matched."""
        return [rule["hits"] for rule in self.service.ask("GET", "faults")["rules"]]

    def counters(self) -> dict[str, Any]:
        """Counters since the start of the test (`vector_assets.local.embeddings_faults.Counters`)."""
        return self.service.ask("GET", "counters")

    def reset(self) -> None:
        """No rules, no limits, all counters at zero."""
        self.service.ask("DELETE", "all")


@pytest.fixture(scope="session")
def embeddings_server(services_home: Path) -> Iterator[Embeddings]:
    """The session's server. Do not stop it."""
    service = EmbeddingsService(services_home / "embeddings")
    start(service)
    yield Embeddings(service)
    service.erase()


@pytest.fixture
def embeddings(embeddings_server: Embeddings) -> Iterator[Embeddings]:
    """The session's server with counters at zero, without the faults and limits that a test set."""
    embeddings_server.reset()
    yield embeddings_server
    embeddings_server.reset()


@pytest.fixture
def own_embeddings(services_home: Path) -> Iterator[Callable[[], Embeddings]]:
    """Makes throwaway servers."""
    services: list[EmbeddingsService] = []

    def make() -> Embeddings:
        service = EmbeddingsService(services_home / f"own_embeddings_{next(_numbers)}")
        services.append(service)
        start(service)
        return Embeddings(service)

    yield make
    for service in services:
        service.erase()
