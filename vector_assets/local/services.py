"""All local services by name: started, listed and stopped together; their addresses published as secrets."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError
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
from vector_assets.local.service import LocalService, Progress, ServiceStatus, exclusive, silent

SERVICES: Mapping[str, type[LocalService]] = {
    KafkaService.name: KafkaService,
    PostgresService.name: PostgresService,
    SchemaRegistryService.name: SchemaRegistryService,
    MilvusService.name: MilvusService,
    MaxComputeService.name: MaxComputeService,
    MySqlService.name: MySqlService,
    MySql8Service.name: MySql8Service,
    S3Service.name: S3Service,
    EmbeddingsService.name: EmbeddingsService,
    OpenSearchService.name: OpenSearchService,
}


def up(names: Iterable[str] | None = None, progress: Progress = silent) -> list[ServiceStatus]:
    """Start the services (by default all that are not large) that do not run, and publish how to reach each.

    Raises:
        ConfigError: a name is unknown, or something a service needs is missing on this machine.
        FatalError: a server ended or did not answer in time.
        TransientError: another process holds a service's lock for too long, or a download failed.
    """
    rows = []
    chosen = _choose(names)
    for service in chosen if names is not None else [each for each in chosen if not each.is_large]:
        rows.append(service.start(progress))
        _publish(service.secrets())
    return rows


def down(names: Iterable[str] | None = None, progress: Progress = silent) -> list[ServiceStatus]:
    """Stop the services (all by default) and withdraw their addresses; their data stays.

    Raises:
        ConfigError: a name is unknown.
        TransientError: another process holds a service's lock for too long.
    """
    rows = []
    for service in _choose(names):
        service.stop(progress)
        _withdraw(service.secret_names)
        rows.append(service.status())
    return rows


def status(names: Iterable[str] | None = None) -> list[ServiceStatus]:
    """How the services (all by default) are doing now.

    Raises:
        ConfigError: a name is unknown.
    """
    return [service.status() for service in _choose(names)]


def _choose(names: Iterable[str] | None) -> list[LocalService]:
    wanted = list(SERVICES) if names is None else list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in SERVICES]
    if unknown:
        raise ConfigError(f"unknown service {', '.join(unknown)}; known: {', '.join(SERVICES)}")
    return [SERVICES[name]() for name in wanted]


def _publish(secrets: Mapping[str, str]) -> None:
    _rewrite({env.secret_variable(name): value for name, value in secrets.items()}, withdrawn=())


def _withdraw(names: Iterable[str]) -> None:
    if env.services_file().exists():
        _rewrite({}, withdrawn=[env.secret_variable(name) for name in names])


def _rewrite(added: Mapping[str, str], withdrawn: Iterable[str]) -> None:
    """Change some lines of the services file, whole or not at all; readable by its owner only."""
    file = env.services_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(file.with_suffix(".lock"), "the list of services", silent):
        lines = {**_read(file), **added}
        for variable in withdrawn:
            lines.pop(variable, None)
        draft = file.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.writelines(f"{variable}={value}\n" for variable, value in lines.items())
        draft.replace(file)


def _read(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    lines = (line.partition("=") for line in file.read_text().splitlines() if "=" in line)
    return {variable: value for variable, _, value in lines}
