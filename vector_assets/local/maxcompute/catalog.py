"""Projects, schemas, tables and partitions: what exists, since when, in which version."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vector_assets.local.maxcompute.refusal import Refusal, invalid, missing_partition, missing_table
from vector_assets.local.maxcompute.store import ROWS, Store
from vector_assets.local.maxcompute.types import Type, parse

DEFAULT_SCHEMA = "default"
MANAGED, VIEW = "MANAGED_TABLE", "VIRTUAL_VIEW"
NESTED_PROPERTY = "columnar.nested.type"


@dataclass
class Column:
    """A column of a table."""

    name: str
    type: Type
    comment: str = ""
    nullable: bool = True


@dataclass
class Extent:
    """What a partition, or a table without partitions, holds: every change of its rows makes a new version."""

    values: tuple[str, ...] = ()
    created: float = 0.0
    ddl: float = 0.0
    modified: float = 0.0
    version: int = 0
    rows: int = 0
    size: int = 0


@dataclass
class Table:
    """A table or view. `extents` has one entry per partition, by values; without partition columns the one of `()`."""

    id: int
    project: str
    schema: str
    name: str
    columns: list[Column]
    partition_columns: list[Column] = field(default_factory=list)
    primary_key: list[str] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    comment: str = ""
    lifecycle: int = -1
    kind: str = MANAGED
    view_text: str = ""
    created: float = 0.0
    ddl: float = 0.0
    modified: float = 0.0
    schema_version: int = 0
    extents: dict[tuple[str, ...], Extent] = field(default_factory=dict)

    @property
    def rows_name(self) -> str:
        """Where DuckDB has its rows."""
        return f"{ROWS}.t{self.id}"

    @property
    def full_name(self) -> str:
        """Project, schema unless the default one, and name."""
        parts = [self.project, self.name] if self.schema == DEFAULT_SCHEMA else [self.project, self.schema, self.name]
        return ".".join(parts)

    @property
    def is_transactional(self) -> bool:
        """True for tables made with 'transactional'='true'."""
        return self.properties.get("transactional", "").lower() == "true"

    @property
    def is_delta(self) -> bool:
        """True for Delta tables: transactional with a primary key."""
        return self.is_transactional and bool(self.primary_key)

    @property
    def buckets(self) -> int:
        """Hash buckets of a Delta table; the service's default is 16."""
        return int(self.properties.get("write.bucket.num", 16))

    @property
    def all_columns(self) -> list[Column]:
        """Columns in SELECT * order: data, then partition columns."""
        return [*self.columns, *self.partition_columns]

    def column(self, name: str) -> Column:
        """The column of a name in any case.

        Raises:
            Refusal: there is none.
        """
        for column in self.all_columns:
            if column.name.lower() == name.lower():
                return column
        known = ", ".join(column.name for column in self.all_columns)
        raise invalid(f"table {self.full_name} has no column {name}; known: {known}")

    def check_columnar(self, columns: Sequence[Column]) -> None:
        """Refuse columns that have an Arrow form only in tables that store what is nested in columns.

        Raises:
            Refusal: quoting the table property.
        """
        nested = [f"{column.name} {column.type}" for column in columns if column.type.is_nested]
        if nested and self.properties.get(NESTED_PROPERTY, "").lower() != "true":
            raise invalid(
                f"table {self.full_name}: column {', '.join(nested)}: nested types are sent in Arrow only of tables"
                f" with tblproperties('{NESTED_PROPERTY}'='true')"
            )

    def extent(self, values: tuple[str, ...]) -> Extent:
        """The partition of these values; `()` is the whole of a table without partitions.

        Raises:
            Refusal: it does not exist.
        """
        if len(values) != len(self.partition_columns):
            names = "/".join(column.name for column in self.partition_columns) or "none"
            raise invalid(f"table {self.full_name} has the partition levels {names}, {len(values)} values were given")
        if values not in self.extents:
            raise missing_partition(self.spec(values))
        return self.extents[values]

    def spec(self, values: Sequence[str]) -> str:
        """`ds=x/h=01`."""
        return "/".join(f"{column.name}={value}" for column, value in zip(self.partition_columns, values, strict=False))

    def values(self, spec: str) -> tuple[str, ...]:
        """The values of `ds='x',h='01'`, `ds=x,h=01` or `ds=x/h=01`, in the order of the levels; perhaps fewer levels.

        Raises:
            Refusal: it names no partition of this table.
        """
        given: dict[str, str] = {}
        for part in spec.replace("/", ",").split(","):
            name, sign, value = part.partition("=")
            if not sign:
                raise Refusal(400, "InvalidPartitionSpec", f"Invalid partition spec: {spec}")
            given[name.strip().strip("`").lower()] = value.strip().strip("'\"")
        levels = [column.name.lower() for column in self.partition_columns]
        if set(given) - set(levels) or levels[: len(given)] != [name for name in levels if name in given]:
            known = "/".join(levels) or "none"
            raise Refusal(400, "InvalidPartitionSpec", f"Invalid partition spec: {spec}; levels of the table: {known}")
        return tuple(given[name] for name in levels[: len(given)])


class Catalog:
    """All of it, kept in memory and in the store's documents; changes belong into `store.writing()`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.on_rollback = self.load
        self.load()

    def load(self) -> None:
        """Read everything from the documents."""
        self.projects: dict[str, dict[str, Any]] = self._store.documents("project")
        self.schemas: dict[str, dict[str, Any]] = self._store.documents("schema")
        self.tables: dict[tuple[str, str, str], Table] = {}
        by_id = {}
        for body in self._store.documents("table").values():
            table = _table(body)
            by_id[table.id] = self.tables[_key(table.project, table.schema, table.name)] = table
        for body in self._store.documents("extent").values():
            extent = Extent(**{**body["extent"], "values": tuple(body["extent"]["values"])})
            by_id[body["table"]].extents[extent.values] = extent
        self._ids = itertools.count(max(by_id, default=0) + 1)

    def add_project(self, name: str, *, schemas: bool) -> None:
        """Make or change a project; `schemas` says whether it has three tiers."""
        with self._store.writing():
            found = self.projects.get(name.lower(), {"name": name, "created": time.time(), "properties": {}})
            found["schemas"] = schemas
            self.projects[name.lower()] = found
            self._store.put("project", name.lower(), found)
            if f"{name}.{DEFAULT_SCHEMA}".lower() not in self.schemas:
                self.add_schema(name, DEFAULT_SCHEMA)

    def project(self, name: str) -> dict[str, Any]:
        """A project's document.

        Raises:
            Refusal: there is none.
        """
        found = self.projects.get(name.lower())
        if found is None:
            raise Refusal(404, "NoSuchProject", f"ODPS-0420095: Project not found - '{name}'")
        return found

    def schema(self, project: str, name: str) -> dict[str, Any]:
        """A schema's document.

        Raises:
            Refusal: there is none.
        """
        self.project(project)
        found = self.schemas.get(f"{project}.{name}".lower())
        if found is None:
            raise Refusal(404, "NoSuchObject", f"Schema not found - '{project}.{name}'")
        return found

    def add_schema(self, project: str, name: str, comment: str = "") -> None:
        """Make a schema.

        Raises:
            Refusal: it exists, or its project does not.
        """
        self.project(project)
        key = f"{project}.{name}".lower()
        if key in self.schemas:
            raise Refusal(409, "ObjectAlreadyExists", f"Schema {project}.{name} already exists")
        body = {"project": project, "name": name, "comment": comment, "created": time.time(), "modified": time.time()}
        self.schemas[key] = body
        self._store.put("schema", key, body)

    def drop_schema(self, project: str, name: str) -> None:
        """Drop a schema without tables.

        Raises:
            Refusal: it does not exist, is the default one, or holds tables.
        """
        self.schema(project, name)
        if name.lower() == DEFAULT_SCHEMA or any(self.tables_of(project, name)):
            raise Refusal(400, "InvalidArgument", f"Schema {project}.{name} is the default one or not empty")
        key = f"{project}.{name}".lower()
        del self.schemas[key]
        self._store.delete("schema", key)

    def find(self, project: str, schema: str, name: str) -> Table | None:
        """The table, or None."""
        return self.tables.get(_key(project, schema, name))

    def table(self, project: str, schema: str, name: str) -> Table:
        """The table.

        Raises:
            Refusal: it, its schema or its project does not exist.
        """
        self.schema(project, schema)
        found = self.find(project, schema, name)
        if found is None:
            raise missing_table(f"{project}.{name}" if schema == DEFAULT_SCHEMA else f"{project}.{schema}.{name}")
        return found

    def tables_of(self, project: str, schema: str) -> list[Table]:
        """Tables of a schema by name."""
        wanted = (project.lower(), schema.lower())
        return [self.tables[key] for key in sorted(self.tables) if key[:2] == wanted]

    def next_id(self) -> int:
        """A number no table has had since the server started, nor has now."""
        return next(self._ids)

    def add(self, table: Table) -> None:
        """Make a table known.

        Raises:
            Refusal: its name is taken.
        """
        self.schema(table.project, table.schema)
        if self.find(table.project, table.schema, table.name):
            raise Refusal(409, "ObjectAlreadyExists", f"Table {table.full_name} already exists")
        table.created = table.ddl = table.modified = time.time()
        self.tables[_key(table.project, table.schema, table.name)] = table
        self.save(table)
        if not table.partition_columns:
            self.add_extent(table, ())

    def save(self, table: Table) -> None:
        """Keep changes of a table, without its extents."""
        body = {name: value for name, value in vars(table).items() if name != "extents"}
        for part in ("columns", "partition_columns"):
            body[part] = [{**vars(column), "type": str(column.type)} for column in body[part]]
        self._store.put("table", str(table.id), body)

    def rename(self, table: Table, name: str) -> None:
        """Give a table another name.

        Raises:
            Refusal: the name is taken.
        """
        if self.find(table.project, table.schema, name):
            raise Refusal(409, "ObjectAlreadyExists", f"Table {name} already exists")
        del self.tables[_key(table.project, table.schema, table.name)]
        table.name = name
        self.tables[_key(table.project, table.schema, name)] = table
        self.altered(table)

    def altered(self, table: Table) -> None:
        """The definition of a table has changed."""
        table.ddl = table.modified = time.time()
        self.save(table)

    def drop(self, table: Table) -> None:
        """Forget a table and its partitions."""
        for values in list(table.extents):
            self.drop_extent(table, values)
        del self.tables[_key(table.project, table.schema, table.name)]
        self._store.delete("table", str(table.id))

    def add_extent(self, table: Table, values: tuple[str, ...]) -> Extent:
        """Make a partition, empty."""
        now = time.time()
        # starts anew at the time, so that a partition dropped and made again is another version
        extent = Extent(values, created=now, ddl=now, modified=now, version=int(now * 1e6))
        table.extents[values] = extent
        self.save_extent(table, extent)
        return extent

    def drop_extent(self, table: Table, values: tuple[str, ...]) -> None:
        """Forget a partition."""
        del table.extents[values]
        self._store.delete("extent", _extent_key(table, values))

    def changed(self, table: Table, extent: Extent, rows: int, size: int) -> None:
        """The rows of an extent have changed; it now has so many."""
        extent.rows, extent.size = rows, size
        extent.version += 1
        extent.modified = table.modified = time.time()
        self.save_extent(table, extent)
        self.save(table)

    def save_extent(self, table: Table, extent: Extent) -> None:
        """Keep changes of an extent."""
        body = {"table": table.id, "extent": asdict(extent)}
        self._store.put("extent", _extent_key(table, extent.values), body)


def _key(project: str, schema: str, name: str) -> tuple[str, str, str]:
    return project.lower(), schema.lower(), name.lower()


def _extent_key(table: Table, values: tuple[str, ...]) -> str:
    return f"{table.id}/{'/'.join(values)}"


def _table(body: dict[str, Any]) -> Table:
    columns = {
        part: [Column(**{**each, "type": parse(each["type"])}) for each in body[part]]
        for part in ("columns", "partition_columns")
    }
    return Table(**{**body, **columns})
