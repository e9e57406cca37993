"""A MaxCompute of one's own on the loopback address."""

import json
import os
import secrets
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import urllib3

import vector_assets
from vector_assets.engine.errors import ConfigError
from vector_assets.local.process import Command
from vector_assets.local.service import LocalService, Progress

PROJECT = "local"
_MODULE = "vector_assets.local.maxcompute.server"
_PACKAGES = {
    "uvicorn": "dagster-webserver",
    "sqlglot_maxcompute": "sqlglot-maxcompute",
    "snappy": "python-snappy",
    "lz4": "lz4",
    "zstandard": "zstandard",
    "crc32c": "crc32c",
}
"""Modules the server imports and the packages that bring them."""


class MaxComputeService(LocalService):
    """Our own server; its key pair is made once and stays."""

    name: ClassVar[str] = "maxcompute"
    secret_names: ClassVar[tuple[str, ...]] = (
        "MAXCOMPUTE_ENDPOINT",
        "MAXCOMPUTE_PROJECT",
        "MAXCOMPUTE_ACCESS_ID",
        "MAXCOMPUTE_ACCESS_KEY",
    )

    @classmethod
    def missing(cls) -> str | None:
        """The packages to install before the server can run, or None."""
        absent = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
        return f"needs {', '.join(absent)}: pip install 'vector-assets[maxcompute]'" if absent else None

    @property
    def data_dir(self) -> Path:
        """Where the server keeps rows, sessions and results."""
        return self.state_dir / "data"

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:<port>`; `/console` below it is for people."""
        return f"http://{self.address}"

    @property
    def access_id(self) -> str:
        """The id of the server's key pair."""
        return str(self._settings()["access_id"])

    @property
    def access_key(self) -> str:
        """The secret of the server's key pair; also the bearer token of `/local`."""
        return str(self._settings()["access_key"])

    def secrets(self) -> Mapping[str, str]:
        """The address, the project there is and the key pair."""
        return {
            "MAXCOMPUTE_ENDPOINT": self.endpoint,
            "MAXCOMPUTE_PROJECT": PROJECT,
            "MAXCOMPUTE_ACCESS_ID": self.access_id,
            "MAXCOMPUTE_ACCESS_KEY": self.access_key,
        }

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """A request to `/local/<path>`: faults, projects, temporary keys and session expiry.

        Raises:
            ConfigError: the server refuses it.
        """
        headers = {"Authorization": f"Bearer {self.access_key}"}
        answer = urllib3.request(
            method, f"{self.endpoint}/local/{path}", json=body, headers=headers, retries=False, timeout=10.0
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
        pair = {"access_id": f"LOCAL{secrets.token_hex(6)}", "access_key": secrets.token_hex(16), "project": PROJECT}
        draft = self._settings_file.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            json.dump(pair, opened)
        draft.replace(self._settings_file)

    def _command(self) -> Command:
        arguments = [sys.executable, "-m", _MODULE, str(self.data_dir), str(self.port)]
        return Command(arguments, {"PYTHONPATH": str(Path(vector_assets.__file__).parents[1])})

    def _answers(self) -> bool:
        """True when this very server, which knows our secret, answers."""
        try:
            return "rules" in self.ask("GET", "faults")
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
