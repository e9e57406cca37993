"""OpenSearch on the loopback address, with machine learning, vector search and neural search: PolarSearch's interface.

No security plugin: credentials are accepted unchecked. No native libraries for faiss either, so a template makes every
vector index search exactly, which accepts the requests of a real cluster unchanged.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import urllib3

from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError
from vector_assets.local import jars, opensearch_home
from vector_assets.local.ports import HOST
from vector_assets.local.process import Command
from vector_assets.local.service import LocalService, Progress, silent

EXACT_TEMPLATE = "vector-assets-exact-knn"
"""Of the old kind (`_template`), which an index template of the new kind replaces as a whole."""

_CLASSES = Path(__file__).parent / "opensearch_java"
_ANSWER_S = 3.0

_SETTINGS: Mapping[str, object] = {
    "discovery.type": "single-node",
    "network.host": HOST,
    "plugins.ml_commons.only_run_on_ml_node": "false",
    # an embedding service on the loopback address
    "plugins.ml_commons.connector.private_ip_enabled": "true",
    # a developer's machine: a disk 90 % full, hundreds of megabytes free
    "cluster.routing.allocation.disk.threshold_enabled": "false",
    "plugins.ml_commons.jvm_heap_memory_threshold": 100,
    "plugins.ml_commons.native_memory_threshold": 100,
}

_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %marker%m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""

_JVM = (
    "-Xms512m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    "-Dlog4j2.formatMsgNoLookups=true",
    "-Dlog4j.shutdownHookEnabled=false",
    "-Dio.netty.noUnsafe=true",
    "-Dio.netty.noKeySetOptimization=true",
    "-Dio.netty.recycler.maxCapacityPerThread=0",
)

_LAST_WITH_COMPAT = 20
_LAST_WITH_SECURITY_MANAGER = 23


class OpenSearchService(LocalService):
    """A real node; `properties` adds to or replaces its settings at the next start."""

    name: ClassVar[str] = "opensearch"
    secret_names: ClassVar[tuple[str, ...]] = ("OPENSEARCH_URL", "POLARSEARCH_HOST_PORT")
    port_names: ClassVar[tuple[str, ...]] = ("client", "transport")
    is_large: ClassVar[bool] = True
    start_timeout_s: ClassVar[float] = 180.0
    stop_timeout_s: ClassVar[float] = 30.0

    def __init__(self, state_dir: Path | None = None, properties: Mapping[str, object] | None = None) -> None:
        super().__init__(state_dir)
        self.properties = dict(properties or {})

    @classmethod
    def missing(cls) -> str | None:
        """The packages to install before OpenSearch can run, or None."""
        return jars.missing()

    @property
    def data_dir(self) -> Path:
        """Where the node keeps its indices."""
        return self.state_dir / "data"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return f"http://{self.address}"

    def secrets(self) -> Mapping[str, str]:
        """The address as a URL, and as the document's variable has it."""
        return {"OPENSEARCH_URL": self.url, "POLARSEARCH_HOST_PORT": self.address}

    def erase(self) -> None:
        """Kill the node, which would write out what is deleted next, and delete everything it keeps."""
        self.kill()
        super().erase()

    def _prepare(self, progress: Progress) -> None:
        self._home(progress)
        config = self.state_dir / "config"
        config.mkdir(exist_ok=True)
        (config / "log4j2.properties").write_text(_LOGGING)
        # settings come with the command; the file must be there
        (config / "opensearch.yml").write_text("")

    def _command(self) -> Command:
        home, ports = self._home(), self.ports()
        settings = {
            **_SETTINGS,
            "cluster.name": self._cluster,
            "node.name": "local",
            "http.port": ports["client"],
            "transport.port": ports["transport"],
            "path.data": self.data_dir,
            "path.logs": self.state_dir / "logs",
            **self.properties,
        }
        classpath = f"{_CLASSES}:{home}/lib/*"
        arguments = [str(home), str(self.state_dir / "config"), *(f"{key}={value}" for key, value in settings.items())]
        errors = f"-XX:ErrorFile={self.state_dir / 'crash-%p.log'}"
        flags = [*_JVM, *_flags(jars.java_release()), errors, f"-Djava.io.tmpdir={self._tmp()}"]
        return Command(
            [str(jars.java()), *flags, "-cp", classpath, "Launch", *arguments], environment=env.java_environment()
        )

    def _answers(self) -> bool:
        """True when this very node has all its shards: right after a start HTTP answers while they are still red."""
        try:
            health = self._ask("GET", "_cluster/health?wait_for_status=yellow&timeout=1s")
            if health.get("cluster_name") != self._cluster or health["timed_out"] or health["status"] == "red":
                return False
            self._search_exactly()
        except (OSError, ValueError, KeyError, urllib3.exceptions.HTTPError, ConfigError):
            return False
        return True

    def _search_exactly(self) -> None:
        if self._ask("GET", f"_template/{EXACT_TEMPLATE}"):
            return
        settings = {"index.knn.advanced.approximate_threshold": -1}
        self._ask("PUT", f"_template/{EXACT_TEMPLATE}", {"index_patterns": ["*"], "order": -1, "settings": settings})

    def _version(self) -> str:
        return str(self._ask("GET", "")["version"]["number"])

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = urllib3.request(method, f"{self.url}/{path}", json=body, retries=False, timeout=_ANSWER_S)
        if answer.status not in {200, 404, 408}:
            raise ConfigError(f"{self.name}: {method} {path}: {answer.status} {answer.data.decode()[:500]}")
        found: dict[str, Any] = json.loads(answer.data)
        return found

    def _home(self, progress: Progress = silent) -> Path:
        return opensearch_home.fetch(progress)

    def _tmp(self) -> Path:
        folder = self.state_dir / "tmp"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def _cluster(self) -> str:
        """A name that no other node on this machine has."""
        return f"vector-assets-{hashlib.sha256(str(self.state_dir).encode()).hexdigest()[:12]}"


def _flags(release: int) -> list[str]:
    """What the Java release needs: our Thai boundaries before its own locale data, and a security manager allowed.

    Release 21 dropped the locale data called COMPAT, 24 the security manager with its flag.
    """
    flags = [f"-Djava.locale.providers=SPI,{'COMPAT' if release <= _LAST_WITH_COMPAT else 'CLDR'}"]
    if release <= _LAST_WITH_SECURITY_MANAGER:
        flags.append("-Djava.security.manager=allow")
    else:
        flags.append("--enable-native-access=ALL-UNNAMED")
        flags.append("--sun-misc-unsafe-memory-access=allow")
    return flags
