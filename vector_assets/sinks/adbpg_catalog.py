"""What the target's catalog says: columns, keys, vector indexes, grants. Plain SQL that PostgreSQL 9.4 knows too."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vector_assets.clients.pgcopy import WIRES, Wire
from vector_assets.clients.postgres import Connection
from vector_assets.engine.errors import PlanError
from vector_assets.engine.registry import nearest

_TEXT_TYPES = frozenset({"text", "varchar", "bpchar", "citext", "name"})


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """A column of the target.

    `wire` is None for a type we cannot write; `length` is the most characters it takes; `collation` is set where it is
    not the database's.
    """

    name: str
    number: int
    type_oid: int
    spelled: str
    wire: Wire | None
    base_oid: int
    base_array_oid: int
    collation: tuple[str, str] | None
    length: int | None
    dimension: int | None
    is_not_null: bool
    has_default: bool
    is_generated: bool
    is_not_null_domain: bool
    grants: frozenset[str]


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index that can name a conflict: valid, immediate, over plain columns, without a predicate."""

    name: str
    columns: tuple[str, ...]
    is_primary: bool


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """A vector index that fixes the dimension of a column."""

    name: str
    column: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Relation:
    """The target table as it is now."""

    oid: int
    schema: str
    name: str
    row_oid: int
    row_array_oid: int
    columns: tuple[TargetColumn, ...]
    unique_indexes: tuple[UniqueIndex, ...]
    vector_indexes: tuple[VectorIndex, ...]
    vector_extension: str | None
    has_insert_trigger: bool
    has_row_security: bool
    has_usage: bool

    def __str__(self) -> str:
        return full_name(self.schema, self.name)

    @property
    def quoted(self) -> str:
        """Its name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def quoted(name: str) -> str:
    """The name in SQL: always in quotes, for a reserved word needs them too."""
    return '"' + name.replace('"', '""') + '"'


def full_name(schema: str, table: str) -> str:
    """The name for people, and the key of the token rows: in quotes only where it is not plain, so it is no SQL."""
    return ".".join(name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) else quoted(name) for name in (schema, table))


def find_relation(connection: Connection, schema: str, table: str, *, is_case_sensitive: bool) -> Relation:
    """The table of that name.

    Raises:
        PlanError: no such schema or table (near names are listed), several that differ in case only, or not a table.
    """
    schemas = [row[0] for row in connection.execute("SELECT nspname FROM pg_catalog.pg_namespace")]
    found_schema = _pick("schema", schema, schemas, is_case_sensitive=is_case_sensitive, place="this database")
    rows = connection.execute(
        "SELECT c.relname, c.relkind::text FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
        [found_schema],
    )
    kinds = {row[0]: row[1] for row in rows}
    name = _pick("table", table, kinds, is_case_sensitive=is_case_sensitive, place=f"schema {found_schema}")
    if kinds[name] not in {"r", "p"}:
        raise PlanError(f"{found_schema}.{name} is a view or a foreign table: rows can only be written to a table")
    return _describe(connection, found_schema, name)


def _pick(what: str, wanted: str, names: Iterable[str], *, is_case_sensitive: bool, place: str) -> str:
    """The name that is meant: PostgreSQL's own folding first, then any case unless case counts."""
    known = sorted(names)
    if is_case_sensitive:
        matches = [name for name in known if name == wanted]
    else:
        matches = [name for name in known if name == wanted.lower()]
        matches = matches or [name for name in known if name.lower() == wanted.lower()]
    if len(matches) > 1:
        raise PlanError(
            f"{what} {wanted!r} may be {' or '.join(matches)} in {place}:"
            " set 'casesensitive' = '1' and write the one you mean"
        )
    if not matches:
        raise PlanError(f"{what} {wanted!r} does not exist in {place}{nearest(wanted, known)}{_listed(what, known)}")
    return matches[0]


def _listed(what: str, known: list[str]) -> str:
    shown = [name for name in known if not name.startswith("pg_")]
    return f"; {what}s there: {', '.join(shown[:20])}{', ...' if len(shown) > 20 else ''}" if shown else f"; no {what}s"


def _describe(connection: Connection, schema: str, name: str) -> Relation:
    version = connection.info.server_version
    row = connection.execute(
        "SELECT c.oid, c.reltype, t.typarray, EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid"
        # row trigger, before, on insert
        " AND NOT g.tgisinternal AND g.tgtype & 7 = 7),"
        f" {'row_security_active(c.oid)' if version >= 90500 else 'false'}, has_schema_privilege(n.oid, 'USAGE'),"
        " (SELECT min(extname) FROM pg_catalog.pg_extension WHERE extname IN ('fastann', 'vector'))"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_catalog.pg_type t ON t.oid = c.reltype WHERE n.nspname = %s AND c.relname = %s",
        [schema, name],
    ).fetchone()
    if row is None:
        raise PlanError(f"table {schema}.{name} was dropped just now")
    oid, row_oid, row_array_oid, has_trigger, has_row_security, has_usage, extension = row
    columns = _columns(connection, oid, version)
    unique, vector = _indexes(connection, oid, version, {column.number: column.name for column in columns})
    return Relation(
        oid=oid,
        schema=schema,
        name=name,
        row_oid=row_oid,
        row_array_oid=row_array_oid,
        columns=columns,
        unique_indexes=unique,
        vector_indexes=vector,
        vector_extension=extension,
        has_insert_trigger=has_trigger,
        has_row_security=has_row_security,
        has_usage=has_usage,
    )


def _columns(connection: Connection, oid: int, version: int) -> tuple[TargetColumn, ...]:
    rows = connection.execute(
        "SELECT a.attname, a.attnum, a.atttypid, a.atttypmod, pg_catalog.format_type(a.atttypid, a.atttypmod),"
        " a.attnotnull, a.atthasdef,"
        f" {'a.attidentity::text' if version >= 100000 else chr(39) * 2},"
        f" {'a.attgenerated::text' if version >= 120000 else chr(39) * 2},"
        " array_remove(ARRAY[CASE WHEN has_column_privilege(a.attrelid, a.attnum, 'INSERT') THEN 'INSERT' END,"
        " CASE WHEN has_column_privilege(a.attrelid, a.attnum, 'UPDATE') THEN 'UPDATE' END,"
        " CASE WHEN has_column_privilege(a.attrelid, a.attnum, 'SELECT') THEN 'SELECT' END], NULL),"
        " n.nspname, l.collname"
        " FROM pg_catalog.pg_attribute a"
        " LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation AND l.collname <> 'default'"
        " LEFT JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace"
        " WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped"
        " ORDER BY a.attnum",
        [oid],
    ).fetchall()
    types = _Types(connection, [row[2] for row in rows])
    return tuple(_column(types, *row) for row in rows)


def _column(
    types: "_Types",
    name: str,
    number: int,
    type_oid: int,
    typmod: int,
    spelled: str,
    is_not_null: bool,  # noqa: FBT001  # a row of the catalog, in its order
    has_default: bool,  # noqa: FBT001
    identity: str,
    generated: str,
    grants: list[str],
    collation_schema: str | None,
    collation: str | None,
) -> TargetColumn:
    base, modifier, is_not_null_domain = types.base(type_oid, typmod)
    return TargetColumn(
        name=name,
        number=number,
        type_oid=type_oid,
        spelled=spelled,
        wire=types.wire(base),
        base_oid=base["oid"],
        base_array_oid=base["typarray"],
        collation=(collation_schema, collation) if collation_schema and collation else None,
        length=modifier - 4 if base["typname"] in {"varchar", "bpchar"} and modifier > 4 else None,
        dimension=modifier if base["typname"] in {"vector", "halfvec"} and modifier > 0 else None,
        is_not_null=is_not_null,
        has_default=has_default or identity != "",
        is_generated=generated != "" or identity == "a",
        is_not_null_domain=is_not_null_domain,
        grants=frozenset(grants),
    )


class _Types:
    """Types by oid, with the types they are made of."""

    def __init__(self, connection: Connection, oids: Iterable[int]) -> None:
        self.known: dict[int, Mapping[str, Any]] = {}
        wanted = set(oids)
        names = ("oid", "typname", "typtype", "typbasetype", "typtypmod", "typelem", "typlen", "typarray", "typnotnull")
        while wanted:
            rows = connection.execute(
                "SELECT oid, typname, typtype::text, typbasetype, typtypmod, typelem, typlen, typarray, typnotnull"
                " FROM pg_catalog.pg_type WHERE oid = ANY(%s::oid[])",
                [list(wanted)],
            ).fetchall()
            self.known |= {row[0]: dict(zip(names, row, strict=True)) for row in rows}
            wanted = {row[index] for row in rows for index in (3, 5) if row[index]} - set(self.known)

    def base(self, oid: int, typmod: int) -> tuple[Mapping[str, Any], int, bool]:
        """The type under all domains, its modifier, and whether a domain forbids nulls."""
        found, is_not_null = self.known[oid], False
        while found["typtype"] == "d":
            is_not_null = is_not_null or found["typnotnull"]
            typmod = found["typtypmod"] if typmod < 0 else typmod
            found = self.known[found["typbasetype"]]
        return found, typmod, is_not_null

    def wire(self, base: Mapping[str, Any]) -> Wire | None:
        """How a value of the type travels; None for a type we cannot write."""
        if base["typname"] in _TEXT_TYPES or base["typtype"] == "e":
            return Wire("text")
        if base["typname"] in WIRES:
            return Wire(base["typname"])
        if base["typelem"] and base["typlen"] == -1:
            element = self.wire(self.base(base["typelem"], -1)[0])
            return Wire(base["typname"], element, base["typelem"]) if element and not element.element else None
        return None


def _indexes(
    connection: Connection, oid: int, version: int, names: Mapping[int, str]
) -> tuple[tuple[UniqueIndex, ...], tuple[VectorIndex, ...]]:
    rows = connection.execute(
        "SELECT x.relname, m.amname, x.reloptions, i.indisunique AND i.indimmediate AND i.indisvalid"
        " AND i.indpred IS NULL AND i.indexprs IS NULL, i.indisprimary,"
        f" (string_to_array(i.indkey::text, ' ')::int[])[1:{key_columns(version)}],"
        " pg_catalog.pg_get_expr(i.indexprs, i.indrelid)"
        " FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid"
        " JOIN pg_catalog.pg_am m ON m.oid = x.relam WHERE i.indrelid = %s ORDER BY i.indisprimary DESC, x.relname",
        [oid],
    ).fetchall()
    unique = tuple(
        UniqueIndex(name, tuple(names[number] for number in numbers), is_primary)
        for name, _, _, is_arbiter, is_primary, numbers, _ in rows
        if is_arbiter
    )
    return unique, tuple(index for row in rows for index in _vector_indexes(row, names))


def key_columns(version: int) -> str:
    """The SQL for how many columns of index `i` are its key; the others are only included."""
    return "i.indnkeyatts" if version >= 110000 else "i.indnatts"


def _vector_indexes(row: tuple[Any, ...], names: Mapping[int, str]) -> Iterable[VectorIndex]:
    """FastANN names the dimension in an option of the index, pgvector in a cast that the index is over."""
    index, method, options, _, _, numbers, expressions = row
    if method == "ann":
        dims = [int(found[1]) for option in options or () if (found := re.fullmatch(r"dim=(\d+)", option.lower()))]
        yield from (VectorIndex(index, names[number], dims[0]) for number in numbers if number and dims)
    for column, in_quotes, dimension in re.findall(
        r'\(?(?:(\w+)|"((?:[^"]|"")+)")\)?::(?:\w+\.|"[^"]+"\.)?(?:vector|halfvec)\((\d+)\)', expressions or ""
    ):
        yield VectorIndex(index, column or in_quotes.replace('""', '"'), int(dimension))
