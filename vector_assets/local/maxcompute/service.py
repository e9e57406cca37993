"""A MaxCompute of one's own on the loopback address."""

import secrets
from collections.abc import Mapping
from typing import ClassVar

from vector_assets.local.own_server import OwnServer

PROJECT = "local"


class MaxComputeService(OwnServer):
    """Our own server; its key pair is made once and stays. `ask` serves faults, projects, temporary keys and session
    expiry."""

    name: ClassVar[str] = "maxcompute"
    secret_names: ClassVar[tuple[str, ...]] = (
        "MAXCOMPUTE_ENDPOINT",
        "MAXCOMPUTE_PROJECT",
        "MAXCOMPUTE_ACCESS_ID",
        "MAXCOMPUTE_ACCESS_KEY",
    )
    module: ClassVar[str] = "vector_assets.local.maxcompute.server"
    packages: ClassVar[Mapping[str, str]] = {
        "uvicorn": "dagster-webserver",
        "sqlglot_maxcompute": "sqlglot-maxcompute",
        "snappy": "python-snappy",
        "lz4": "lz4",
        "zstandard": "zstandard",
        "crc32c": "crc32c",
    }
    extra: ClassVar[str] = "maxcompute"
    proof: ClassVar[tuple[str, str]] = ("faults", "rules")

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

    @property
    def bearer(self) -> str:
        """The secret of the key pair."""
        return self.access_key

    def secrets(self) -> Mapping[str, str]:
        """The address, the project there is and the key pair."""
        return {
            "MAXCOMPUTE_ENDPOINT": self.endpoint,
            "MAXCOMPUTE_PROJECT": PROJECT,
            "MAXCOMPUTE_ACCESS_ID": self.access_id,
            "MAXCOMPUTE_ACCESS_KEY": self.access_key,
        }

    def _new_settings(self) -> Mapping[str, str]:
        return {
            "access_id": f"LOCAL{secrets.token_hex(6)}",
            "access_key": secrets.token_hex(16),
            "project": PROJECT,
        }
