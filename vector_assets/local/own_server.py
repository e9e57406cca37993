"""A server of our own as a local service: a Python module with a key that is made once, asked below `/local`."""

import json
import os
import sys
from abc import abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import urllib3

import vector_assets
from vector_assets.engine.errors import ConfigError
from vector_assets.local.process import Command
from vector_assets.local.service import LocalService, Progress


class OwnServer(LocalService):
    """Runs `python -m <module> <data folder> <port>`; its settings, with the key, are in a file for its user only."""

    module: ClassVar[str]
    packages: ClassVar[Mapping[str, str]]
    """Modules the server imports and the packages that bring them."""
    extra: ClassVar[str]
    """What of vector-assets to install for them."""
    proof: ClassVar[tuple[str, str]]
    """What is asked to know that the server which answers is this one, and a member of its answer."""

    @classmethod
    def missing(cls) -> str | None:
        """The packages to install before the server can run, or None."""
        absent = [package for module, package in cls.packages.items() if find_spec(module) is None]
        return f"needs {', '.join(absent)}: pip install 'vector-assets[{cls.extra}]'" if absent else None

    @property
    def data_dir(self) -> Path:
        """Where the server keeps what it keeps."""
        return self.state_dir / "data"

    @property
    @abstractmethod
    def bearer(self) -> str:
        """The bearer token of `/local`."""

    @abstractmethod
    def _new_settings(self) -> Mapping[str, str]:
        """What is made once and stays."""

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """A request to `/local/<path>`: faults and whatever else the server lets be set or counted.

        Raises:
            ConfigError: the server refuses it.
        """
        headers = {"Authorization": f"Bearer {self.bearer}"}
        answer = urllib3.request(
            method, f"http://{self.address}/local/{path}", json=body, headers=headers, retries=False, timeout=10.0
        )
        if answer.status != 200:
            raise ConfigError(f"{self.name}: {method} {path}: {answer.status} {answer.data.decode()[:500]}")
        return answer.json()

    def _prepare(self, _progress: Progress) -> None:
        if reason := self.missing():
            raise ConfigError(f"{self.name}: {reason}")
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        if self._settings_file.exists():
            return
        draft = self._settings_file.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            json.dump(self._new_settings(), opened)
        draft.replace(self._settings_file)

    def _command(self) -> Command:
        arguments = [sys.executable, "-m", self.module, str(self.data_dir), str(self.port)]
        return Command(arguments, {"PYTHONPATH": str(Path(vector_assets.__file__).parents[1])})

    def _answers(self) -> bool:
        """True when this very server, which knows our secret, answers."""
        path, member = self.proof
        try:
            return member in self.ask("GET", path)
        except (OSError, ValueError, ConfigError, urllib3.exceptions.HTTPError):
            return False

    def _version(self) -> str:
        return str(vector_assets.__version__)

    @property
    def _settings_file(self) -> Path:
        return self.data_dir / "server.json"

    def _settings(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._settings_file.read_text())
        return found
