"""Apache Kafka, one KRaft node on the loopback address."""

import base64
import shutil
import socket
import struct
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from vector_assets.engine import env
from vector_assets.engine.errors import FatalError
from vector_assets.local import jars
from vector_assets.local.ports import HOST
from vector_assets.local.process import Command
from vector_assets.local.service import LocalService, Progress, silent

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
_LOGGING = "org.slf4j:slf4j-simple:1.7.36"
"""Kafka brings the interface only; without a binding even its errors are lost."""

_LARGEST_RECORD_BYTES = 32 << 20

_SETTINGS: Mapping[str, object] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    # seeded records carry old timestamps: the default of 7 days would delete them at once
    "log.retention.ms": -1,
    "message.max.bytes": _LARGEST_RECORD_BYTES,
    "replica.fetch.max.bytes": _LARGEST_RECORD_BYTES,
    "fetch.max.bytes": 2 * _LARGEST_RECORD_BYTES,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 4,
    "group.initial.rebalance.delay.ms": 0,
    # 128 MB of heap by default
    "log.cleaner.dedupe.buffer.size": 8 << 20,
    "num.network.threads": 2,
    "num.io.threads": 4,
}

_JVM = (
    "-Xms64m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)


class KafkaService(LocalService):
    """A real broker; `properties` adds to or replaces its server properties at the next start."""

    name: ClassVar[str] = "kafka"
    secret_names: ClassVar[tuple[str, ...]] = ("KAFKA_BOOTSTRAP_SERVERS",)
    port_names: ClassVar[tuple[str, ...]] = ("client", "controller")

    def __init__(self, state_dir: Path | None = None, properties: Mapping[str, object] | None = None) -> None:
        super().__init__(state_dir)
        self.properties = dict(properties or {})

    @classmethod
    def missing(cls) -> str | None:
        """The packages to install before Kafka can run, or None."""
        return jars.missing()

    @property
    def data_dir(self) -> Path:
        """Where the broker keeps its logs."""
        return self.state_dir / "data"

    def secrets(self) -> Mapping[str, str]:
        """The bootstrap address."""
        return {"KAFKA_BOOTSTRAP_SERVERS": self.address}

    def _prepare(self, progress: Progress) -> None:
        self._jars(progress)
        if self._cluster_id():
            return
        # without meta.properties this is no storage, only what an interrupted format left
        shutil.rmtree(self.data_dir, ignore_errors=True)
        progress("formatting the storage of kafka")
        self._write_properties()
        arguments = ["format", f"--cluster-id={_new_cluster_id()}", "--config", str(self._properties_file)]
        done = self._java("kafka.tools.StorageTool", *arguments).run(self.state_dir)
        if done.returncode != 0:
            raise FatalError(f"kafka: cannot format {self.data_dir}:\n{done.stdout.decode(errors='replace')}")

    def _command(self) -> Command:
        self._write_properties()
        return self._java("kafka.Kafka", str(self._properties_file))

    def _answers(self) -> bool:
        """True when a broker of this very cluster is in its own metadata, so that it takes requests."""
        cluster = self._cluster_id()
        return bool(cluster) and _cluster_with_brokers(self.port) == cluster

    def _version(self) -> str:
        clients = next(jar for jar in self._jars() if jar.name.startswith("kafka-clients-"))
        with zipfile.ZipFile(clients) as archive:
            lines = archive.read("kafka/kafka-version.properties").decode().splitlines()
        return next(line.removeprefix("version=") for line in lines if line.startswith("version="))

    def _jars(self, progress: Progress = silent) -> list[Path]:
        return jars.resolve(f"kafka-{KAFKA.rpartition(':')[2]}", f"{KAFKA}+{_LOGGING}", progress)

    def _java(self, main: str, *arguments: str) -> Command:
        classpath = ":".join(map(str, self._jars()))
        errors = f"-XX:ErrorFile={self.state_dir / 'crash-%p.log'}"
        return Command(
            [str(jars.java()), *_JVM, errors, "-cp", classpath, main, *arguments], environment=env.java_environment()
        )

    @property
    def _properties_file(self) -> Path:
        return self.state_dir / "server.properties"

    def _write_properties(self) -> None:
        ports = self.ports()
        listener = f"PLAINTEXT://{HOST}:{ports['client']}"
        controller = f"{HOST}:{ports['controller']}"
        settings = {
            **_SETTINGS,
            "listeners": f"{listener},CONTROLLER://{controller}",
            "advertised.listeners": listener,
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": self.data_dir,
            **self.properties,
        }
        self._properties_file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    def _cluster_id(self) -> str:
        """The id the storage was formatted with; empty when it was not."""
        try:
            lines = (self.data_dir / "meta.properties").read_text().splitlines()
        except FileNotFoundError:
            return ""
        return next((line.partition("=")[2] for line in lines if line.startswith("cluster.id=")), "")


def _new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _cluster_with_brokers(port: int) -> str:
    """The id of the cluster that answers on the port and has a broker; empty when there is none."""
    # Metadata request (key 3), version 2, no client id, no topics
    request = struct.pack(">hhihi", 3, 2, 1, -1, 0)
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                (length,) = struct.unpack(">i", stream.read(4))
                return _parse_metadata(stream.read(length))
    except (OSError, struct.error, UnicodeDecodeError):
        return ""


def _parse_metadata(answer: bytes) -> str:
    """The cluster id in a Metadata response of version 2 that lists a broker."""

    def text(at: int) -> tuple[str, int]:
        (length,) = struct.unpack_from(">h", answer, at)
        end = at + 2 + max(length, 0)
        return answer[at + 2 : end].decode(), end

    _, brokers = struct.unpack_from(">ii", answer)
    at = 8
    for _ in range(brokers):
        _, at = text(at + 4)
        _, at = text(at + 4)
    cluster, _ = text(at)
    return cluster if brokers else ""
