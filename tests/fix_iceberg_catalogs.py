"""Iceberg catalogs for tests: a REST catalog (Iceberg's own reference server), a Hive metastore, and Glue by moto.

The two Java servers are made through py4j, because their own `main` would listen on every address of the machine.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.fix_services import unavailable
from vector_assets.engine.errors import ConfigError, TransientError
from vector_assets.local import jars
from vector_assets.local.ports import HOST
from vector_assets.local.service import silent
from vector_assets.local.spark import java17

REST = "+".join(
    (
        "org.apache.iceberg:iceberg-core:1.10.0:tests", "org.apache.iceberg:iceberg-core:1.10.0",
        "org.apache.iceberg:iceberg-api:1.10.0", "org.apache.iceberg:iceberg-common:1.10.0",
        "org.apache.iceberg:iceberg-bundled-guava:1.10.0", "org.apache.avro:avro:1.12.0",
        "io.airlift:aircompressor:0.27", "org.apache.httpcomponents.client5:httpclient5:5.5",
        "com.fasterxml.jackson.core:jackson-core:2.19.2", "com.fasterxml.jackson.core:jackson-databind:2.19.2",
        "com.github.ben-manes.caffeine:caffeine:2.9.3", "org.roaringbitmap:RoaringBitmap:1.3.0",
        "org.eclipse.jetty:jetty-servlet:11.0.26", "org.eclipse.jetty:jetty-server:11.0.26",
        "org.eclipse.jetty:jetty-util:11.0.26", "org.eclipse.jetty.toolchain:jetty-jakarta-servlet-api:5.0.2",
        "org.apache.hadoop:hadoop-client-api:3.4.1", "org.apache.hadoop:hadoop-client-runtime:3.4.1",
        "org.xerial:sqlite-jdbc:3.46.1.0", "org.slf4j:slf4j-api:2.0.17", "org.slf4j:slf4j-simple:2.0.17",
    )
)  # fmt: skip
"""All by name: jgo does not follow what a jar with a classifier needs."""
HIVE = "+".join(
    (
        "org.apache.hive:hive-standalone-metastore:3.1.3", "org.apache.hadoop:hadoop-client-api:3.3.6",
        "org.apache.hadoop:hadoop-client-runtime:3.3.6", "org.apache.derby:derby:10.14.2.0",
        "org.slf4j:slf4j-api:1.7.36", "org.slf4j:slf4j-simple:1.7.36",
    )
)  # fmt: skip
_JVM = ("-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
_OPENED = ("java.base/java.lang", "java.base/java.net", "java.base/java.util")
_YES, _NO = True, False
_numbers = itertools.count()


class Jvm:
    """A Java process with some jars."""

    def __init__(self, name: str, coordinates: str, log: Path) -> None:
        from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

        try:
            classpath = jars.resolve(name, coordinates, silent)
        except (ConfigError, TransientError) as error:
            unavailable(f"{name}: {error}")
        opened = [part for each in _OPENED for part in ("--add-opens", f"{each}=ALL-UNNAMED")]
        with log.open("wb") as file:
            port, token, self.process = launch_gateway(
                classpath=":".join(map(str, classpath)), javaopts=[*_JVM, *opened], java_path=str(java17()),
                die_on_exit=True, redirect_stderr=file, create_new_process_group=True,
                enable_auth=True, return_proc=True,
            )  # fmt: skip
        parameters = GatewayParameters(port=port, auth_token=token, auto_convert=True)
        self.gateway = JavaGateway(gateway_parameters=parameters)
        self.classes: Any = self.gateway.jvm

    def close(self) -> None:
        self.gateway.shutdown()
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class CatalogServer:
    """How to reach a catalog: the sink's options, without the name of the table; a fresh database for each test."""

    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.database = f"shop{next(_numbers)}"


@pytest.fixture(scope="session")
def _rest_catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("rest")
    jvm = Jvm("iceberg-rest-1.10.0-tests", REST, folder / "server.log")
    java = jvm.classes
    catalog = java.org.apache.iceberg.jdbc.JdbcCatalog()
    catalog.setConf(java.org.apache.hadoop.conf.Configuration())
    warehouse = f"file://{folder}/warehouse"
    settings = {
        "uri": f"jdbc:sqlite:{folder}/catalog.db", "warehouse": warehouse, "jdbc.schema-version": "V1",
        "io-impl": "org.apache.iceberg.hadoop.HadoopFileIO",
    }  # fmt: skip
    catalog.initialize("backend", settings)
    servlet = java.org.apache.iceberg.rest.RESTCatalogServlet(java.org.apache.iceberg.rest.RESTCatalogAdapter(catalog))
    context = java.org.eclipse.jetty.servlet.ServletContextHandler()
    context.setContextPath("/")
    context.addServlet(java.org.eclipse.jetty.servlet.ServletHolder(servlet), "/*")
    server = java.org.eclipse.jetty.server.Server(java.java.net.InetSocketAddress(HOST, 0))
    server.setHandler(context)
    server.start()
    port = server.getURI().getPort()
    yield {"catalog-type": "rest", "uri": f"http://{HOST}:{port}", "warehouse": warehouse}
    jvm.close()


@pytest.fixture(scope="session")
def _hive_catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("hive")
    jvm = Jvm("hive-metastore-3.1.3-tests", HIVE, folder / "server.log")
    java = jvm.classes
    settings = {
        "metastore.expression.proxy": "org.apache.hadoop.hive.metastore.DefaultPartitionExpressionProxy",
        "metastore.task.threads.always": "org.apache.hadoop.hive.metastore.events.EventCleanerTask",
        "metastore.warehouse.dir": f"{folder}/warehouse",
        "javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={folder}/db;create=true",
        "datanucleus.schema.autoCreateAll": "true",
        "metastore.schema.verification": "false",
    }
    conf = java.org.apache.hadoop.hive.metastore.conf.MetastoreConf.newMetastoreConf()
    for name, value in settings.items():
        conf.set(name, value)
    java.java.lang.System.setProperty("derby.stream.error.file", f"{folder}/derby.log")
    store = java.org.apache.hadoop.hive.metastore
    # the tables of locks are no part of what the metastore makes by itself
    java.org.apache.hadoop.hive.metastore.txn.TxnDbUtil.setConfValues(conf)
    java.org.apache.hadoop.hive.metastore.txn.TxnDbUtil.prepDb(conf)
    base = getattr(java, "org.apache.hadoop.hive.metastore.HiveMetaStore$HMSHandler")("tests", conf, _NO)
    handler = store.RetryingHMSHandler.getProxy(conf, base, _YES)
    thrift = java.org.apache.thrift
    socket = java.java.net.ServerSocket(0, 50, java.java.net.InetAddress.getByName(HOST))
    transport = thrift.transport.TServerSocket(socket)
    processor = getattr(java, "org.apache.hadoop.hive.metastore.api.ThriftHiveMetastore$Processor")(handler)
    arguments = getattr(java, "org.apache.thrift.server.TThreadPoolServer$Args")(transport).processor(processor)
    server = thrift.server.TThreadPoolServer(arguments)
    threading.Thread(target=_serve, args=(server,), daemon=True).start()
    uri = f"thrift://{HOST}:{socket.getLocalPort()}"
    yield {"catalog-type": "hive", "uri": uri, "warehouse": f"file://{folder}/warehouse"}
    jvm.close()


def _serve(server: Any) -> None:
    from py4j.protocol import Py4JError

    try:
        server.serve()
    except (Py4JError, OSError):
        # the JVM was ended
        return


def _versioned(update_table: Callable[[Any], Any], refusal: Callable[[str], Exception]) -> Callable[[Any], Any]:
    """moto's UpdateTable with what Glue does and moto leaves out: an update whose `VersionId` is not the table's own is
    refused with ConcurrentModificationException, and looking and changing are one step.

    Only this fault is a fake, for moto cannot show it; AWS itself was not tried.
    """
    one_at_a_time = threading.Lock()

    def update(response: Any) -> Any:
        wanted, name = response.parameters.get("VersionId"), response.parameters["TableInput"]["Name"]
        with one_at_a_time:
            table = response.glue_backend.get_table(response.parameters["DatabaseName"], name)
            if wanted is not None and wanted != table.as_dict()["VersionId"]:
                raise refusal("Update table failed due to concurrent modifications.")
            return update_table(response)

    return update


@pytest.fixture(scope="session")
def _glue_catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if find_spec("moto") is None or find_spec("boto3") is None:
        unavailable("glue: needs moto, flask, flask-cors and boto3")
    from moto.glue.exceptions import GlueClientError
    from moto.glue.responses import GlueResponse
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(HOST, 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    folder = tmp_path_factory.mktemp("glue")
    refusal = partial(GlueClientError, "ConcurrentModificationException")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GlueResponse, "update_table", _versioned(GlueResponse.update_table, refusal))
        yield {
            "catalog-type": "glue", "warehouse": f"file://{folder}/warehouse",
            "glue.endpoint": f"http://{HOST}:{port}", "glue.region": "us-east-1",
            "glue.access-key-id": "tests", "glue.secret-access-key": "tests",
        }  # fmt: skip
    server.stop()
