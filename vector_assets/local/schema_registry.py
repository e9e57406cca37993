"""A schema registry for Avro on the loopback address."""

import json
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import urllib3

import vector_assets
from vector_assets.engine.errors import ConfigError
from vector_assets.local.ports import HOST
from vector_assets.local.process import Command
from vector_assets.local.registry_server import IDENTITY
from vector_assets.local.service import LocalService, Progress

_MODULE = "vector_assets.local.registry_server"


class SchemaRegistryService(LocalService):
    """Our own small server of the registry's REST API; `users` (name to password), if any, are who may ask."""

    name: ClassVar[str] = "schema-registry"
    secret_names: ClassVar[tuple[str, ...]] = ("SCHEMA_REGISTRY_URL",)

    def __init__(self, state_dir: Path | None = None, users: Mapping[str, str] | None = None) -> None:
        super().__init__(state_dir)
        self.users = dict(users or {})

    @classmethod
    def missing(cls) -> str | None:
        """The package to install before the registry can check schemas, or None."""
        return None if find_spec("fastavro") else "needs the package fastavro: pip install 'vector-assets[avro]'"

    @property
    def data_dir(self) -> Path:
        """Where the registry keeps its subjects."""
        return self.state_dir / "data"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return f"http://{self.address}"

    def secrets(self) -> Mapping[str, str]:
        """The registry's address."""
        return {"SCHEMA_REGISTRY_URL": self.url}

    def _prepare(self, _progress: Progress) -> None:
        if reason := self.missing():
            raise ConfigError(f"{self.name}: {reason}")
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        users = self.data_dir / "users.json"
        users.unlink(missing_ok=True)
        if self.users:
            descriptor = os.open(users, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as opened:
                json.dump(self.users, opened)

    def _command(self) -> Command:
        arguments = [sys.executable, "-m", _MODULE, str(self.data_dir), str(self.port)]
        return Command(arguments, {"PYTHONPATH": str(Path(vector_assets.__file__).parents[1])})

    def _answers(self) -> bool:
        """True when this very registry, not another one on the port, answers."""
        try:
            kept = json.loads((self.data_dir / "registry.json").read_text())["cluster"]
            found = urllib3.request("GET", f"http://{HOST}:{self.port}{IDENTITY}", retries=False, timeout=2.0)
            return found.status == 200 and bool(found.json() == {"id": kept})
        except (OSError, ValueError, KeyError, urllib3.exceptions.HTTPError):
            return False

    def _version(self) -> str:
        return str(vector_assets.__version__)
