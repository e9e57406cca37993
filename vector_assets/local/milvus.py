"""Milvus on the loopback address: milvus-lite in its server mode, so that several processes can use it."""

import re
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError
from vector_assets.local.ports import HOST
from vector_assets.local.process import Command
from vector_assets.local.service import LocalService, Progress

_PACKAGES = ("milvus_lite", "pymilvus", "grpc")

_MAIN = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.default_int_handler);"
    " from milvus_lite.cmdline import main; sys.exit(main())"
)
"""milvus-lite closes its files on a keyboard interrupt only, which a process in the background is not sent."""

_VERSION_CALL = "/milvus.proto.milvus.MilvusService/GetVersion"
_SPELLED = re.compile(rb"milvus_lite-([0-9A-Za-z.+]+)")
_ANSWER_S = 2.0


class MilvusService(LocalService):
    """milvus-lite behind the Milvus protocol, without users.

    It has one worker: with several, concurrent writers and a kill -9 corrupted its write-ahead log and lost rows it had
    acknowledged; with one nothing was lost.
    """

    name: ClassVar[str] = "milvus"
    secret_names: ClassVar[tuple[str, ...]] = ("MILVUS_ENDPOINT", "MILVUS_PORT")

    @classmethod
    def missing(cls) -> str | None:
        """The package to install before Milvus can run, or None."""
        if any(find_spec(package) is None for package in _PACKAGES):
            return "needs milvus-lite and pymilvus: pip install 'vector-assets[local,milvus]'"
        return None

    @property
    def data_dir(self) -> Path:
        """Where the server keeps its data."""
        return self.state_dir / "data"

    def secrets(self) -> Mapping[str, str]:
        """Host and port, as the options `endpoint` and `port` take them."""
        return dict(zip(self.secret_names, (HOST, str(self.port)), strict=True))

    def _prepare(self, progress: Progress) -> None:
        reason = self.missing()
        if reason:
            raise ConfigError(f"milvus: {reason}")

    def _command(self) -> Command:
        places = ["--data-dir", str(self.data_dir), "--host", HOST, "--port", str(self.port), "--max-workers", "1"]
        return Command([sys.executable, "-c", _MAIN, "server", *places], env.child_environment(PYTHONUNBUFFERED="1"))

    def _answers(self) -> bool:
        return bool(self._version())

    def _version(self) -> str:
        """What the server calls itself; empty when it does not answer, or somebody else does."""
        import grpc

        # the generated stubs are in pymilvus, whose import takes 2 s
        with grpc.insecure_channel(self.address) as channel:
            call = channel.unary_unary(_VERSION_CALL, request_serializer=bytes, response_deserializer=bytes)
            try:
                found = _SPELLED.search(call(b"", timeout=_ANSWER_S))
            except grpc.RpcError:
                return ""
        return found[1].decode() if found else ""


def coordinates() -> str:
    """What would run, by the installed package: cheap, starts nothing."""
    return f"milvus-lite {version('milvus-lite')}"
