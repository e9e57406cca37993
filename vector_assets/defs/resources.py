"""Resources for assets of your own: the services that pipelines use, reached the same way.

Give secrets as `dg.EnvVar("NAME")`: Dagster then shows the variable's name and never its value.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
from pydantic import Field, SecretStr

from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient
    from odps import ODPS
    from pymilvus import MilvusClient

    from vector_assets.clients.kafka import ControlPlane
    from vector_assets.clients.kafka_properties import Properties
    from vector_assets.clients.maxcompute import MaxCompute
    from vector_assets.clients.milvus_api import Api
    from vector_assets.clients.mysql import MySql
    from vector_assets.clients.opensearch import Client as OpenSearchClient
    from vector_assets.clients.postgres import Connection, Login


class KafkaResource(dg.ConfigurableResource[Any]):
    """A Kafka cluster. `properties` takes any client property that a script may give as `properties.*`."""

    bootstrap_servers: str = Field(description="host:port, several separated by commas.")
    security_protocol: str | None = Field(None, description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.")
    sasl_mechanism: str | None = Field(None, description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.")
    sasl_username: str | None = Field(None, description="User of the SASL login.")
    sasl_password: str | None = Field(None, description="Its password.", repr=False)
    ssl_ca_location: str | None = Field(None, description="PEM file of the authorities to trust.")
    ssl_certificate_location: str | None = Field(None, description="PEM file of our certificate.")
    ssl_key_location: str | None = Field(None, description="PEM file of its key.")
    ssl_key_password: str | None = Field(None, description="Password of an encrypted key.", repr=False)
    properties: dict[str, str] = Field(default_factory=dict, description="More client properties.", repr=False)

    def consumer(self, **settings: Any) -> "Consumer":
        """A confluent-kafka consumer; `settings` in librdkafka's spelling with `_` for `.` (`group_id="mine"`).

        Raises:
            ConfigError: a property is unknown or refused.
        """
        from vector_assets.clients import kafka

        return kafka.consumer(self._properties(), _dotted(settings))

    def producer(self, **settings: Any) -> "Producer":
        """A confluent-kafka producer; `settings` as for `consumer`.

        Raises:
            ConfigError: a property is unknown or refused.
        """
        from vector_assets.clients import kafka

        return kafka.producer(self._properties(), _dotted(settings))

    def admin(self) -> "AdminClient":
        """A confluent-kafka admin client.

        Raises:
            ConfigError: a property is unknown or refused.
        """
        from vector_assets.clients import kafka

        return kafka.confluent_admin(self._properties())

    def frontier(self, topic: str) -> dict[int, int]:
        """Per partition the offset just past the last readable record.

        Raises:
            PlanError: there is no such topic.
            UnavailableError: the cluster does not answer within 2 s.
        """
        control = self._control()
        try:
            return control.log_ends(topic, control.topic(topic).partitions, committed=True)
        finally:
            control.close()

    def _control(self) -> "ControlPlane":
        from vector_assets.clients.kafka import ControlPlane

        return ControlPlane(self._properties())

    def _properties(self) -> "Properties":
        from vector_assets.clients.kafka_properties import Properties

        named = {name.replace("_", "."): value for name, value in self._named().items() if value is not None}
        try:
            return Properties({**named, **self.properties})
        except ValueError as error:
            raise ConfigError(f"KafkaResource: {error}") from None

    def _named(self) -> dict[str, str | None]:
        return {name: getattr(self, name) for name in type(self).model_fields if name != "properties"}


def _dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in settings.items()}


class PostgresResource(dg.ConfigurableResource[Any]):
    """An AnalyticDB for PostgreSQL or PostgreSQL database."""

    host: str
    port: int = 5432
    database: str
    user: str
    password: str = Field(repr=False)
    sslmode: str | None = Field(None, description="libpq's sslmode, such as require or verify-full.")
    sslrootcert: str | None = Field(None, description="PEM file of the authorities to trust.")
    sslcert: str | None = Field(None, description="PEM file of our certificate.")
    sslkey: str | None = Field(None, description="PEM file of its key.")

    def connect(self) -> "Connection":
        """A psycopg connection in autocommit mode; use it as a context manager to have it closed.

        Raises:
            ConfigError: the server refuses the login, the database or the TLS settings.
            UnavailableError: nobody answers.
        """
        from vector_assets.clients.postgres import connect

        return connect(self._login())

    def query(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> pa.Table:
        """The rows of a query as an Arrow table; fetched whole, so for results that fit in memory.

        Raises:
            PlanError: the statement is wrong.
            UnavailableError: nobody answers.
        """
        from vector_assets.clients.postgres import translated
        from vector_assets.defs.postgres_tables import fetched

        with self.connect() as connection, translated(f"{self.host}:{self.port}/{self.database}"):
            return fetched(connection, statement, parameters)

    def copy_arrow(self, rows: pa.Table, table: str) -> int:
        """COPY an Arrow table into `schema.table`, all or nothing; how many rows were written.

        Columns meet by name; types are converted and checked as a pipeline's are, vectors included.

        Raises:
            PlanError: a column is missing or its type does not fit.
            RecordError: a row does not fit, or its key exists; nothing was written.
        """
        from vector_assets.clients.postgres import translated
        from vector_assets.defs.postgres_tables import copied

        with self.connect() as connection, translated(f"{self.host}:{self.port}/{self.database}: {table}"):
            return copied(connection, rows, table, user=self.user)

    def _login(self) -> "Login":
        from vector_assets.clients.postgres import TLS_PARAMETERS, Address, Login

        given = tuple((name, str(value)) for name in TLS_PARAMETERS if (value := getattr(self, name)) is not None)
        return Login(Address(self.host, self.port, self.database, given), self.user, SecretStr(self.password))


class MilvusResource(dg.ConfigurableResource[Any]):
    """A Milvus server, or a database of one."""

    uri: str = Field(description="http://host:port, or https://host:port for TLS.")
    user: str | None = Field(None, description="User, if the server wants one.")
    password: str | None = Field(None, description="Password of the user.", repr=False)
    token: str | None = Field(None, description="API key instead of user and password.", repr=False)
    database: str = Field("default", description="Database of the collections.")

    def client(self) -> "MilvusClient":
        """A pymilvus client with a connection of its own, to be closed by the caller.

        It retries on its own, up to 75 times.

        Raises:
            ConfigError: the address is none, or the server refuses the credentials, the database or TLS.
            UnavailableError: nobody answers.
        """
        from pymilvus import MilvusClient

        # pymilvus would try for a long time, and give every failure the same error
        self._api().close()
        login: dict[str, str] = {"token": self.token} if self.token else {}
        if self.user and self.password:
            login = {"user": self.user, "password": self.password}
        # connections that pymilvus shares stay open when clients are closed, and are found broken by the next one
        return MilvusClient(uri=self.uri, db_name=self.database, dedicated=True, **login)

    def count(self, collection: str, partition: str | None = None) -> int:
        """How many rows a collection (or one partition of it) has now: `count(*)`, read with consistency level Strong.

        Raises:
            PlanError: there is no such collection, or it is not loaded.
            UnavailableError: nobody answers.
        """
        api = self._api()
        try:
            return api.count(collection, api.describe(collection).key, partition=partition)
        finally:
            api.close()

    def query(self, collection: str, where: str, limit: int | None = None) -> pa.Table:
        """Rows that meet an expression as an Arrow table, read with consistency level Strong.

        Fields of types that no pipeline can write are left out.

        Raises:
            PlanError: there is no such collection, or it is not loaded.
            RefusedError: the expression is wrong.
            UnavailableError: nobody answers.
        """
        from vector_assets.clients.milvus_wire import arrow_type

        api = self._api()
        try:
            fields = [field for field in api.describe(collection).fields if arrow_type(field) is not None]
            return api.query(collection, where, fields, limit=limit)
        finally:
            api.close()

    def _api(self) -> "Api":
        from vector_assets.clients.milvus import Login, connect

        try:
            host, port, secure = Login.parse_uri(self.uri)
        except ValueError as error:
            raise ConfigError(f"MilvusResource: uri: {error}") from None
        secret = SecretStr(self.password) if self.password else None
        token = SecretStr(self.token) if self.token else None
        return connect(Login(host, port, secure, self.database, self.user, secret, token), "MilvusResource")


class MySqlResource(dg.ConfigurableResource[Any]):
    """A MySQL or MariaDB server."""

    host: str
    port: int = 3306
    user: str
    password: str = Field(repr=False)

    def tables(self, databases: str, tables: str) -> pa.Table:
        """Tables whose names match two regular expressions: `database`, `table`, `columns`, `key`, `rows` (about).

        Raises:
            ConfigError: the server refuses us.
            UnavailableError: nobody answers.
        """
        from vector_assets.clients.mysql_schema import discover

        server = self._server()
        try:
            found = discover(server, databases, tables)
        finally:
            server.close()
        return pa.table(
            {
                "database": pa.array([each.database for each in found], pa.string()),
                "table": pa.array([each.name for each in found], pa.string()),
                "columns": pa.array([[c.name for c in each.columns] for each in found], pa.list_(pa.string())),
                "key": pa.array([list(each.key) for each in found], pa.list_(pa.string())),
                "rows": pa.array([each.rows for each in found], pa.int64()),
            }
        )

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement, with `%s` for the values.

        Raises:
            PlanError: the server does not understand it.
            ConfigError: the server refuses us.
            UnavailableError: nobody answers.
        """
        server = self._server()
        try:
            return server.rows(statement, values)
        finally:
            server.close()

    def _server(self) -> "MySql":
        from vector_assets.clients.mysql import Login, MySql

        return MySql(Login(self.host, self.port, self.user, self.password))


class MaxComputeResource(dg.ConfigurableResource[Any]):
    """A MaxCompute project."""

    endpoint: str = Field(description="http(s) address of the service.")
    project: str
    access_id: str
    access_key: str = Field(repr=False)
    sts_token: str | None = Field(None, description="Token of a temporary key pair.", repr=False)
    schema_name: str | None = Field(None, description="Schema of the tables, in projects of three tiers.")
    tunnel_endpoint: str | None = Field(None, description="Address of the tunnel; by default the service names one.")
    quota_name: str | None = Field(None, description="Quota of the tunnel; tunnel_endpoint wins where both are given.")

    def client(self) -> "ODPS":
        """A pyodps entry to the project; it retries on its own, refusals for now (429) for ever.

        Raises:
            ConfigError: the endpoint is no address.
        """
        from vector_assets.clients.maxcompute_rest import plain_odps

        return plain_odps(self._service().login)

    def partitions(self, table: str) -> pa.Table:
        """The partitions of a table: `spec` (`ds=20180905`), `created`, `modified`, and `rows` and `bytes` where known.

        Raises:
            PlanError: there is no such table.
            ConfigError: the project or the key pair is wrong.
            UnavailableError: nobody answers.
        """
        service = self._service()
        found = service.partitions(service.table(table))
        moments = {
            name: pa.array([getattr(part, name) for part in found], pa.int64()) for name in ("created", "modified")
        }
        counts = {name: [None if (n := getattr(part, name)) < 0 else n for part in found] for name in ("rows", "bytes")}
        return pa.table(
            {
                "spec": pa.array([part.spec for part in found], pa.string()),
                **{name: moment.cast(pa.timestamp("s", "UTC")) for name, moment in moments.items()},
                **{name: pa.array(values, pa.int64()) for name, values in counts.items()},
            }
        )

    def read(self, table: str, partition: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a partition (`ds=20180905`), or of a table without partitions; whole, so for what fits in memory.

        Raises:
            PlanError: there is no such table, partition or column, or the tunnel does not read the table.
            ConfigError: the project or the key pair is wrong.
            TransientError: the service does not answer properly.
        """
        from vector_assets.clients.maxcompute_read import read_partition

        service = self._service()
        found = service.table(table)
        names = columns or [column.name for column in (*found.columns, *found.levels)]
        schema = pa.schema([found.column(name).field for name in names])
        return pa.Table.from_batches(read_partition(service, found, partition, names), schema)

    def _service(self) -> "MaxCompute":
        from vector_assets.clients.maxcompute import MaxCompute
        from vector_assets.clients.maxcompute_options import Login, check_endpoint
        from vector_assets.engine.retry import RetryPolicy

        try:
            endpoint = check_endpoint(self.endpoint)
        except ValueError as error:
            raise ConfigError(f"MaxComputeResource: endpoint: {error}") from None
        token = SecretStr(self.sts_token) if self.sts_token else None
        login = Login(
            endpoint, self.project, self.access_id, SecretStr(self.access_key), self.schema_name, self.tunnel_endpoint,
            self.quota_name, token,
        )  # fmt: skip
        return MaxCompute(login, RetryPolicy(wait_seconds=1.0, outage_seconds=0.0))


class OpenSearchResource(dg.ConfigurableResource[Any]):
    """An OpenSearch or PolarSearch cluster."""

    hosts: str = Field(description="http(s)://host:port, several separated by ';'.")
    username: str | None = Field(None, description="User, if the cluster wants one.")
    password: str | None = Field(None, description="Password of the user.", repr=False)
    verify_certificates: bool = Field(default=True, description="False takes any certificate of an https host.")
    ca_file: str | None = Field(None, description="File with the certificates to trust instead of the system's.")

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer to a REST request, as JSON.

        Raises:
            ConfigError: the address is none, or the cluster refuses the credentials.
            PlanError: the cluster refuses the request, or what it is about does not exist.
            UnavailableError: nobody answers.
        """
        client = self._client()
        try:
            return client.ask(method, path, body)
        finally:
            client.close()

    def count(self, index: str) -> int:
        """How many documents an index has now, after a refresh.

        Raises:
            PlanError: there is no such index.
            UnavailableError: nobody answers.
        """
        self.ask("POST", f"/{index}/_refresh")
        return int(self.ask("GET", f"/{index}/_count")["count"])

    def _client(self) -> "OpenSearchClient":
        from vector_assets.clients.opensearch import Login, connect

        try:
            hosts = tuple(Login.parse_host(each) for each in self.hosts.split(";"))
        except ValueError as error:
            raise ConfigError(f"OpenSearchResource: hosts: {error}") from None
        secret = SecretStr(self.password) if self.password else None
        login = Login(hosts, self.username, secret, verifies=self.verify_certificates, ca_file=self.ca_file)
        return connect(login, "OpenSearchResource")
