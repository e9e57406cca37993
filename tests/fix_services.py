"""Where test services live: a home of the session's own, never the developer's."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, TransientError
from vector_assets.local import process
from vector_assets.local.embeddings import EmbeddingsService
from vector_assets.local.kafka import KafkaService
from vector_assets.local.maxcompute.service import MaxComputeService
from vector_assets.local.milvus import MilvusService
from vector_assets.local.mysql import MySqlService
from vector_assets.local.mysql8 import MySql8Service
from vector_assets.local.opensearch import OpenSearchService
from vector_assets.local.postgres import PostgresService
from vector_assets.local.s3 import S3Service
from vector_assets.local.schema_registry import SchemaRegistryService
from vector_assets.local.service import LocalService

PREFIX = "vector-assets-tests-"
_KINDS: dict[str, type[LocalService]] = {
    "kafka": KafkaService,
    "milvus": MilvusService,
    "registry": SchemaRegistryService,
    "maxcompute": MaxComputeService,
    "mysql8": MySql8Service,
    "mariadb": MySqlService,
    "s3": S3Service,
    "embeddings": EmbeddingsService,
    "opensearch": OpenSearchService,
}


@pytest.fixture(scope="session")
def services_home() -> Iterator[Path]:
    """A folder that a server running as another user can reach, unlike pytest's own."""
    erase_homes_of_dead_sessions()
    home = Path(tempfile.mkdtemp(prefix=PREFIX))
    home.chmod(0o711)
    draft = home / "session.draft"
    draft.write_text(f"{os.getpid()} {process.identity(os.getpid())}")
    draft.rename(home / "session")
    yield home
    shutil.rmtree(home)


def erase_homes_of_dead_sessions() -> None:
    """Stop what sessions that were killed left running, each server by its recorded pid and start time."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/session"):
        pid, _, started = owner.read_text().partition(" ")
        if process.identity(int(pid)) == started or owner.stat().st_uid != os.geteuid():
            continue
        for record in owner.parent.glob("*/process.json"):
            kind = next((kind for name, kind in _KINDS.items() if name in record.parent.name), PostgresService)
            kind(record.parent).erase()
        shutil.rmtree(owner.parent, ignore_errors=True)


def start(service: LocalService) -> None:
    """Start a service; without what it needs the test is skipped, on a CI machine it fails."""
    reason = service.missing()
    if reason is None:
        try:
            service.start()
        except (ConfigError, TransientError) as error:
            reason = str(error)
        else:
            return
    unavailable(f"{service.name}: {reason}")


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it on a CI machine."""
    if env.in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
