"""MaxCompute projects: tables and partitions as the roles see them. pyodps is imported when a server is first asked."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pyarrow as pa

from vector_assets.clients.maxcompute_errors import NoTableError, translated
from vector_assets.clients.maxcompute_options import Codec, Login, MaxComputeOptions
from vector_assets.clients.maxcompute_types import logical_type
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.engine.retry import RetryPolicy
from vector_assets.engine.schema import LogicalType

if TYPE_CHECKING:
    from odps import ODPS
    from odps.models import Table as OdpsTable
    from odps.tunnel import TableTunnel

T = TypeVar("T")
NESTED_PROPERTY = "columnar.nested.type"
_NESTED = frozenset({"ARRAY", "MAP", "ROW"})


@dataclass(frozen=True, slots=True)
class MaxColumn:
    """A column of a table; `text` is its type as MaxCompute spells it, in lower case."""

    name: str
    type: LogicalType
    text: str
    nullable: bool = True

    @property
    def is_json(self) -> bool:
        """True for JSON, which is text to us and has no Arrow type in the tunnel."""
        return self.text == "json"

    @property
    def is_nested(self) -> bool:
        """True for ARRAY, MAP, STRUCT and JSON, which tables store in columns only when they are told to."""
        return self.is_json or self.type.name in _NESTED

    @property
    def field(self) -> pa.Field:
        """The column in Arrow, as the tunnel sends it."""
        return pa.field(self.name, self.type.arrow)


@dataclass(frozen=True, slots=True)
class MaxTable:
    """A table as it is now; `handle` is pyodps's table. `columns` are without the partition columns.

    `modified` is in epoch seconds; `rows` and `bytes` are -1 where unknown.
    """

    name: str
    columns: tuple[MaxColumn, ...]
    levels: tuple[MaxColumn, ...]
    primary_key: tuple[str, ...]
    is_transactional: bool
    is_view: bool
    properties: dict[str, str] = field(repr=False)
    modified: int
    rows: int
    bytes: int
    handle: "OdpsTable" = field(repr=False, compare=False)

    @property
    def is_delta(self) -> bool:
        """True for Delta tables: a primary key and transactional."""
        return self.is_transactional and bool(self.primary_key)

    @property
    def is_partitioned(self) -> bool:
        """True when it has partition columns."""
        return bool(self.levels)

    @property
    def schema(self) -> pa.Schema:
        """The data columns in Arrow."""
        return pa.schema([column.field for column in self.columns])

    def column(self, name: str) -> MaxColumn:
        """The data or partition column of a name, upper and lower case the same.

        Raises:
            PlanError: there is none.
        """
        for column in (*self.columns, *self.levels):
            if column.name.lower() == name.lower():
                return column
        known = ", ".join(column.name for column in (*self.columns, *self.levels))
        raise PlanError(f"maxcompute: table {self.name} has no column {name}; its columns: {known}")

    def check_nested(self, names: Sequence[str] | None = None) -> None:
        """Refuse a table whose nested columns (all, or those of `names`) are not stored in columns.

        Raises:
            PlanError: quoting the table property to set.
        """
        chosen = self.columns if names is None else [self.column(name) for name in names]
        nested = [f"{column.name} {column.text.upper()}" for column in chosen if column.is_nested]
        if nested and self.properties.get(NESTED_PROPERTY, "").lower() != "true":
            raise PlanError(
                f"maxcompute: table {self.name} has the column {', '.join(nested)}: ARRAY, MAP, STRUCT and JSON are"
                f" read and written only in tables made with tblproperties('{NESTED_PROPERTY}'='true')"
            )


@dataclass(frozen=True, slots=True)
class MaxPartition:
    """A partition; `spec` is `ds=20180905/hh=01`. Times are epoch seconds; rows and bytes are -1 where unknown."""

    spec: str
    values: tuple[str, ...]
    created: int
    modified: int
    rows: int
    bytes: int


class MaxCompute:
    """A project, reached by pyodps with our bounds on retries. Threads may share it."""

    def __init__(self, login: Login, policy: RetryPolicy, codec: Codec = "SNAPPY") -> None:
        self.login = login
        self.policy = policy
        self.codec = codec
        self.place = f"maxcompute: {login.project} at {login.endpoint}"
        self._opening = threading.RLock()
        self._odps: ODPS | None = None
        self._tunnel: TableTunnel | None = None

    @classmethod
    def of(cls, options: MaxComputeOptions) -> Self:
        """The project that a table's options name."""
        return cls(options.login, options.retry, options.compress_algorithm)

    def import_client(self) -> None:
        """Import pyodps now, which takes a second or two; later it costs nothing.

        Raises:
            ConfigError: it is not installed.
        """
        try:
            import vector_assets.clients.maxcompute_rest  # noqa: F401 (to have it imported)
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("vector_assets"):
                raise
            raise ConfigError(
                f"{self.place}: needs the package {error.name}: pip install 'vector-assets[maxcompute]'"
            ) from error

    @property
    def odps(self) -> "ODPS":
        """pyodps's entry; its requests are bounded, its errors its own unless they go through `ask`."""
        from vector_assets.clients.maxcompute_rest import open_odps, settings

        with self._opening:
            if self._odps is None:
                with settings():
                    self._odps = open_odps(self.login, self.policy, self.place)
            return self._odps

    @property
    def tunnel(self) -> "TableTunnel":
        """pyodps's tunnel, with bounded requests as well."""
        from vector_assets.clients.maxcompute_rest import open_tunnel, settings

        with self._opening:
            if self._tunnel is None:
                odps = self.odps
                with settings():
                    self._tunnel = open_tunnel(odps, self.login)
            return self._tunnel

    def ask(self, fn: Callable[[], T], place: str) -> T:
        """`fn()`, which uses pyodps: without pyodps's own retries, its errors translated.

        Raises:
            VectorAssetsError: see `maxcompute_errors.translated`.
        """
        from vector_assets.clients.maxcompute_rest import settings

        with settings(), translated(f"maxcompute: {place}"):
            return fn()

    def table(self, name: str) -> MaxTable:
        """What a table is now.

        Raises:
            NoTableError: there is none.
            ConfigError: the project, the key pair or a right is wrong.
        """
        full = self.login.full_name(name)
        handle = self.ask(lambda: self._load(name), full)
        if handle is None:
            raise NoTableError(f"maxcompute: table {full} does not exist")
        return self.ask(lambda: _described(full, handle), full)

    def _load(self, name: str) -> Any:
        handle = self.odps.get_table(name, schema=self.login.schema)
        handle.reload()
        handle.reload_extend_info()
        return handle

    def has_schemas(self) -> bool:
        """True where tables of the project lie in schemas (three tiers).

        Raises:
            ConfigError: the project or the key pair is wrong.
            UnavailableError: the service does not answer.
        """
        name = "odps.schema.model.enabled"
        found = self.ask(lambda: self.odps.get_project().get_property(name, "false"), self.login.project)
        return str(found).lower() == "true"

    def partitions(self, table: MaxTable, prefix: str | None = None) -> list[MaxPartition]:
        """All partitions by their values, or those whose first levels are `prefix` (`yyyy=2018,MM=09`).

        Raises:
            NoTableError: the table is gone.
        """
        if not table.is_partitioned:
            return []

        def listed() -> list[MaxPartition]:
            return [_partition(found) for found in table.handle.iterate_partitions(prefix)]

        return sorted(self.ask(listed, table.name), key=lambda part: part.values)

    def partition(self, table: MaxTable, spec: str) -> MaxPartition:
        """One partition as it is now, by one request.

        Raises:
            NoPartitionError: there is none.
        """

        def asked() -> MaxPartition:
            found = table.handle.get_partition(spec.replace("/", ","))
            found.reload()
            return _partition(found)

        return self.ask(asked, f"{table.name}/{spec}")

    def close(self) -> None:
        """Nothing stays open but idle connections, which end with their threads; idempotent."""
        self._odps = self._tunnel = None


def _described(name: str, handle: Any) -> MaxTable:
    schema = handle.table_schema
    reserved = handle.reserved if isinstance(handle.reserved, dict) else {}
    properties = {**reserved, **(getattr(handle, "table_properties", None) or {})}
    key = handle.primary_key or ()
    return MaxTable(
        name=name,
        columns=tuple(map(_column, schema.simple_columns)),
        levels=tuple(map(_column, schema.partitions)),
        primary_key=tuple(key),
        is_transactional=bool(handle.is_transactional),
        is_view=bool(handle.is_virtual_view),
        properties={str(key): str(value) for key, value in properties.items()},
        modified=_seconds(handle.last_data_modified_time),
        rows=_known(handle.record_num),
        bytes=_known(handle.size),
        handle=handle,
    )


def _column(column: Any) -> MaxColumn:
    return MaxColumn(column.name, logical_type(column.type), str(column.type).lower(), column.nullable is not False)


def _partition(found: Any) -> MaxPartition:
    spec = found.partition_spec
    return MaxPartition(
        spec="/".join(f"{name}={value}" for name, value in spec.items()),
        values=tuple(spec.values()),
        created=_seconds(found.creation_time),
        modified=_seconds(found.last_data_modified_time),
        rows=_known(_listed(found, "record_num")),
        bytes=_known(_listed(found, "size")),
    )


def _seconds(moment: Any) -> int:
    """pyodps gives local times without a zone."""
    return int(moment.timestamp()) if moment is not None else 0


def _listed(found: Any, name: str) -> Any:
    """What a listing said of a partition; pyodps would ask for each one that the listing left out."""
    return object.__getattribute__(found, name)


def _known(count: Any) -> int:
    return -1 if count is None or int(count) < 0 else int(count)
