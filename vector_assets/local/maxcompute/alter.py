"""ALTER TABLE: columns, partitions, names and properties."""

import re
import time
from collections.abc import Iterator

import duckdb
from sqlglot import exp

from vector_assets.local.maxcompute import query
from vector_assets.local.maxcompute.catalog import Catalog, Column, Table
from vector_assets.local.maxcompute.kinds import columns_of, type_of
from vector_assets.local.maxcompute.names import Scope, parts_of, parts_of_node
from vector_assets.local.maxcompute.refusal import Refusal, invalid, missing_partition
from vector_assets.local.maxcompute.rows import Rows
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.types import Type, quoted

_NAME = r"(?P<name>(?:`(?:[^`]|``)+`|[\w.])+)"
_GROUP = r"PARTITION\s*\(((?:'[^']*'|\"[^\"]*\"|[^()'\"])*)\)"
_START = rf"^\s*ALTER\s+TABLE\s+{_NAME}\s+"
_ADD = re.compile(rf"{_START}ADD\s+(?P<exists>IF\s+NOT\s+EXISTS\s+)?(?P<rest>PARTITION\s*\(.*)$", re.I | re.S)
_DROP = re.compile(rf"{_START}DROP\s+(?P<exists>IF\s+EXISTS\s+)?(?P<rest>PARTITION\s*\(.*)$", re.I | re.S)
_TOUCH = re.compile(rf"{_START}TOUCH\s*(?P<rest>PARTITION\s*\(.*)?$", re.I | re.S)
_RENAME = re.compile(rf"{_START}(?P<old>{_GROUP})\s*RENAME\s+TO\s+(?P<new>{_GROUP})\s*$", re.I | re.S)
_LIFECYCLE = re.compile(rf"{_START}SET\s+LIFECYCLE\s+(?P<days>\d+)\s*$", re.I)
_OWNER = re.compile(rf"{_START}CHANGEOWNER\s+TO\s+", re.I)
_DROP_COLUMNS = re.compile(rf"{_START}DROP\s+COLUMNS?\s+(?P<rest>.+)$", re.I | re.S)
_RENAME_COLUMN = re.compile(
    rf"{_START}CHANGE\s+(?:COLUMN\s+)?(?P<old>`[^`]+`|\w+)\s+RENAME\s+TO\s+(?P<new>`[^`]+`|\w+)\s*$", re.I
)
_NULLABLE = re.compile(rf"{_START}CHANGE\s+(?:COLUMN\s+)?(?P<column>`[^`]+`|\w+)\s+(?P<not>NOT\s+)?NULL\s*$", re.I)
_GROUPS = re.compile(_GROUP, re.I | re.S)


class Alterations:
    """ALTER statements, each in one transaction."""

    def __init__(self, store: Store, catalog: Catalog, rows: Rows) -> None:
        self._store = store
        self._catalog = catalog
        self._rows = rows

    def by_text(self, statement: str, scope: Scope) -> bool:
        """Run an ALTER that the parser does not know; False when it is another statement.

        Raises:
            Refusal: names are wrong.
        """
        for pattern, act in (
            (_ADD, self._add_partitions),
            (_DROP, self._drop_partitions),
            (_TOUCH, self._touch),
            (_RENAME, self._rename_partition),
            (_LIFECYCLE, self._set_lifecycle),
            (_DROP_COLUMNS, self._drop_columns),
            (_RENAME_COLUMN, self._rename_column),
            (_NULLABLE, self._let_be_null),
        ):
            found = pattern.match(statement)
            if found:
                with self._store.writing():
                    act(scope.table(parts_of(found["name"])), found)
                return True
        if _OWNER.match(statement):
            raise invalid("CHANGEOWNER: there is one owner here")
        return False

    def by_tree(self, tree: exp.Alter, scope: Scope) -> None:
        """Run a parsed ALTER.

        Raises:
            Refusal: names are wrong, or it is not supported here.
        """
        table = scope.table(parts_of_node(tree.this))
        with self._store.writing():
            for action in tree.args["actions"]:
                match action:
                    case exp.Schema():
                        self._add_columns(table, action.expressions)
                    case exp.ColumnDef():
                        self._add_columns(table, [action])
                    case exp.AlterRename():
                        self._catalog.rename(table, action.this.name)
                    case exp.AlterSet():
                        self._set(table, action)
                    case exp.AlterColumn():
                        self._change_column(table, action)
                    case other:
                        raise invalid(f"ALTER TABLE {other.sql(dialect='maxcompute')} is not supported here")

    def _add_columns(self, table: Table, nodes: list[exp.Expr]) -> None:
        known = {column.name.lower() for column in table.all_columns}
        for column in columns_of(nodes):
            if column.name.lower() in known:
                raise Refusal(
                    400, "ODPS-0130071", f"ODPS-0130071:Semantic analysis exception - column {column.name} exists"
                )
            if not column.nullable:
                raise invalid(f"column {column.name}: a column added to a table cannot be NOT NULL")
            table.columns.append(column)
            self._rows.add_column(table, column)
        self._definition_changed(table)

    def _definition_changed(self, table: Table) -> None:
        table.schema_version += 1
        self._catalog.altered(table)

    def _set(self, table: Table, action: exp.AlterSet) -> None:
        for node in action.find_all(exp.Property):
            if isinstance(node, exp.SchemaCommentProperty):
                table.comment = node.this.name
            elif node.this.name.upper() == "LIFECYCLE":
                table.lifecycle = int(node.args["value"].name)
            else:
                table.properties[node.this.name] = node.args["value"].name
        self._catalog.altered(table)

    def _change_column(self, table: Table, action: exp.AlterColumn) -> None:
        column = self._free_column(table, action.this.name)
        renamed, kind, comment = action.args.get("rename_to"), action.args.get("dtype"), action.args.get("comment")
        with self._store.writing() as connection:
            try:
                if kind is not None and type_of(kind) != column.type:
                    _check_conversion(column, type_of(kind))
                    column.type = type_of(kind)
                    connection.execute(
                        f"ALTER TABLE {table.rows_name} ALTER {quoted(column.name)} TYPE {column.type.duck}"
                    )
                if renamed is not None and renamed.name != column.name:
                    connection.execute(
                        f"ALTER TABLE {table.rows_name} RENAME {quoted(column.name)} TO {quoted(renamed.name)}"
                    )
                    table.primary_key = [renamed.name if key == column.name else key for key in table.primary_key]
                    column.name = renamed.name
            except duckdb.Error as error:
                raise query.semantic(error) from error
        if isinstance(comment, exp.Expr):
            column.comment = comment.name
        self._definition_changed(table)

    def _free_column(self, table: Table, name: str) -> Column:
        """A column that may be changed: partitions and a Delta table's key stay as they were made."""
        column = table.column(name)
        if column in table.partition_columns or column.name in table.primary_key:
            raise invalid(f"column {column.name} is in the primary key or the partition: it cannot be changed")
        return column

    def _rename_column(self, table: Table, found: re.Match[str]) -> None:
        column, new = self._free_column(table, found["old"].strip("`")), found["new"].strip("`")
        if any(each is not column and each.name.lower() == new.lower() for each in table.all_columns):
            raise invalid(f"column {new} exists")
        with self._store.writing() as connection:
            connection.execute(f"ALTER TABLE {table.rows_name} RENAME {quoted(column.name)} TO {quoted(new)}")
        column.name = new
        self._definition_changed(table)

    def _let_be_null(self, table: Table, found: re.Match[str]) -> None:
        column = self._free_column(table, found["column"].strip("`"))
        if found["not"]:
            raise invalid(f"column {column.name}: a column cannot become NOT NULL")
        if not column.nullable:
            with self._store.writing() as connection:
                connection.execute(f"ALTER TABLE {table.rows_name} ALTER {quoted(column.name)} DROP NOT NULL")
        column.nullable = True
        self._definition_changed(table)

    def _drop_columns(self, table: Table, found: re.Match[str]) -> None:
        for name in found["rest"].strip(" ()").split(","):
            column = table.column(name.strip().strip("`"))
            if column in table.partition_columns or column.name in table.primary_key or len(table.columns) == 1:
                raise invalid(f"column {column.name} cannot be dropped")
            table.columns.remove(column)
            with self._store.writing() as connection:
                connection.execute(f"ALTER TABLE {table.rows_name} DROP {quoted(column.name)}")
        self._definition_changed(table)

    def _set_lifecycle(self, table: Table, found: re.Match[str]) -> None:
        table.lifecycle = int(found["days"])
        self._catalog.altered(table)

    def _add_partitions(self, table: Table, found: re.Match[str]) -> None:
        for values in _all_levels(table, found["rest"]):
            if values not in table.extents:
                self._catalog.add_extent(table, values)
            elif not found["exists"]:
                raise Refusal(409, "ObjectAlreadyExists", f"Partition already exists: {table.spec(values)}")
        self._catalog.altered(table)

    def _drop_partitions(self, table: Table, found: re.Match[str]) -> None:
        for group in _GROUPS.findall(found["rest"]):
            values = table.values(group)
            matched = [key for key in table.extents if key[: len(values)] == values]
            if not matched and not found["exists"]:
                raise missing_partition(table.spec(values))
            for key in matched:
                self._rows.delete(table, key)
                self._catalog.drop_extent(table, key)
        self._catalog.altered(table)

    def _touch(self, table: Table, found: re.Match[str]) -> None:
        chosen = list(_all_levels(table, found["rest"])) if found["rest"] else list(table.extents)
        for values in chosen:
            extent = table.extent(values)
            extent.modified = extent.ddl = time.time()
            self._catalog.save_extent(table, extent)
        table.modified = time.time()
        self._catalog.save(table)

    def _rename_partition(self, table: Table, found: re.Match[str]) -> None:
        (old,), (new,) = _all_levels(table, found["old"]), _all_levels(table, found["new"])
        rows = self._rows.read(table, table.extent(old).values, table.columns)
        if new in table.extents:
            raise Refusal(409, "ObjectAlreadyExists", f"Partition already exists: {table.spec(new)}")
        self._rows.delete(table, old)
        self._catalog.drop_extent(table, old)
        extent = self._catalog.add_extent(table, new)
        self._rows.append(table, extent, rows)
        self._rows.changed(table, extent)


_WIDER = ("tinyint", "smallint", "int", "bigint")
_NUMBERS = frozenset({*_WIDER, "float", "double", "decimal"})
_TEXTS = frozenset({"char", "varchar", "string"})
_AS_TEXT = _NUMBERS | _TEXTS | {"date", "datetime", "timestamp", "timestamp_ntz"}


def _check_conversion(column: Column, wanted: Type) -> None:
    """Refuse a new type that would lose values: the service only widens, or makes text of it."""
    old, new = column.type.name, wanted.name
    is_able = (
        (new == "string" and old in _AS_TEXT)
        or (old in _WIDER and new in _WIDER and _WIDER.index(old) < _WIDER.index(new))
        or (old in _WIDER and new in {"float", "double", "decimal"})
        or (old == "float" and new == "double")
        or (old in {"char", "varchar"} and new == "varchar" and column.type.numbers[0] <= wanted.numbers[0])
        or (old == new == "decimal" and _is_wider_decimal(column.type.numbers, wanted.numbers))
    )
    if not is_able:
        raise invalid(f"column {column.name}: {column.type} cannot be converted to {wanted}")


def _is_wider_decimal(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    return new[0] - new[1] >= old[0] - old[1] and new[1] >= old[1]


def _all_levels(table: Table, text: str) -> Iterator[tuple[str, ...]]:
    for group in _GROUPS.findall(text):
        values = table.values(group)
        if len(values) != len(table.partition_columns):
            raise Refusal(400, "InvalidPartitionSpec", f"Invalid partition spec: {group}")
        yield values
