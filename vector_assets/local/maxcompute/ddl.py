"""CREATE, DROP and TRUNCATE."""

from sqlglot import exp

from vector_assets.local.maxcompute import query
from vector_assets.local.maxcompute.catalog import Catalog, Column, Table
from vector_assets.local.maxcompute.insert import Inserts
from vector_assets.local.maxcompute.kinds import columns_of
from vector_assets.local.maxcompute.names import Scope, parts_of_node
from vector_assets.local.maxcompute.refusal import Refusal, invalid
from vector_assets.local.maxcompute.rows import Rows
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.types import of_arrow

_PARTITION_TYPES = {"string", "char", "varchar", "tinyint", "smallint", "int", "bigint", "date"}


class Definitions:
    """Statements that make and remove tables, views and schemas."""

    def __init__(self, store: Store, catalog: Catalog, rows: Rows, inserts: Inserts) -> None:
        self._store = store
        self._catalog = catalog
        self._rows = rows
        self._inserts = inserts

    def create(self, tree: exp.Create, scope: Scope) -> None:
        """Run a CREATE.

        Raises:
            Refusal: it exists, or the definition is wrong.
        """
        with self._store.writing():
            match tree.kind:
                case "SCHEMA" | "DATABASE":
                    self._create_schema(tree, scope)
                case "VIEW":
                    self._create_view(tree, scope)
                case "TABLE":
                    self._create_table(tree, scope)
                case other:
                    raise invalid(f"CREATE {other} is not supported here")

    def _create_schema(self, tree: exp.Create, scope: Scope) -> None:
        project, name = scope.schema_place(parts_of_node(tree.this))
        if not (tree.args.get("exists") and f"{project}.{name}".lower() in self._catalog.schemas):
            self._catalog.add_schema(project, name)

    def _named(self, tree: exp.Create, scope: Scope) -> Table | None:
        """The table to be, without columns; None when it exists and may."""
        node = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
        project, schema, name = scope.place(parts_of_node(node))
        if self._catalog.find(project, schema, name) and tree.args.get("exists"):
            return None
        return Table(self._catalog.next_id(), project, schema, name, [])

    def _create_view(self, tree: exp.Create, scope: Scope) -> None:
        node = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
        old = self._catalog.find(*scope.place(parts_of_node(node)))
        if old and tree.args.get("replace"):
            self._drop(old)
        table = self._named(tree, scope)
        if table is None:
            return
        for comment in tree.find_all(exp.SchemaCommentProperty):
            table.comment = comment.this.name
        table.view_text = tree.expression.sql(dialect="maxcompute")
        found = query.create_view(self._store, table, tree.expression, scope)
        labels = [part.name for part in tree.this.expressions] if isinstance(tree.this, exp.Schema) else found.names
        table.columns = [Column(name, of_arrow(part.type)) for name, part in zip(labels, found, strict=True)]
        self._catalog.add(table)

    def _create_table(self, tree: exp.Create, scope: Scope) -> None:
        table = self._named(tree, scope)
        if table is None:
            return
        properties = tree.args.get("properties")
        self._set_properties(table, properties.expressions if properties else [], scope)
        if isinstance(tree.this, exp.Schema):
            table.columns = columns_of(tree.this.expressions)
            for key in tree.this.find_all(exp.PrimaryKey):
                table.primary_key = [table.column(part.name).name for part in key.expressions]
        if tree.expression and not table.columns:
            found = query.run(self._store, f"SELECT * FROM ({query.localized(tree.expression, scope)}) LIMIT 0")
            table.columns = [Column(part.name, of_arrow(part.type)) for part in found.schema]
        _check(table)
        self._catalog.add(table)
        self._rows.create(table)
        if tree.expression:
            self._inserts.insert(exp.Insert(this=_node(table), expression=tree.expression), scope)

    def _set_properties(self, table: Table, properties: list[exp.Expr], scope: Scope) -> None:
        for node in properties:
            match node:
                case exp.PartitionedByProperty():
                    table.partition_columns = columns_of(node.this.expressions)
                case exp.SchemaCommentProperty():
                    table.comment = node.this.name
                case exp.LikeProperty():
                    _copy_definition(table, scope.table(parts_of_node(node.this)))
                case exp.ClusteredByProperty():
                    # how rows lie on disk changes no result
                    table.properties["clustered.by"] = ",".join(part.name for part in node.expressions)
                case exp.Property(this=exp.Expr() as name) if type(node) is exp.Property:
                    if name.name.upper() == "LIFECYCLE":
                        table.lifecycle = int(node.args["value"].name)
                    else:
                        table.properties[name.name] = node.args["value"].name
                case other:
                    raise invalid(f"CREATE TABLE: {other.sql(dialect='maxcompute')} is not supported here")

    def drop(self, tree: exp.Drop, scope: Scope) -> None:
        """Run a DROP.

        Raises:
            Refusal: it does not exist.
        """
        with self._store.writing():
            for node in tree.args.get("tables") or [tree.this]:
                if tree.kind in {"SCHEMA", "DATABASE"}:
                    self._drop_schema(*scope.schema_place(parts_of_node(node)), if_exists=bool(tree.args.get("exists")))
                    continue
                found = self._catalog.find(*scope.place(parts_of_node(node)))
                if found is None and tree.args.get("exists"):
                    continue
                self._drop(found or scope.table(parts_of_node(node)))

    def _drop_schema(self, project: str, name: str, *, if_exists: bool) -> None:
        if not (if_exists and f"{project}.{name}".lower() not in self._catalog.schemas):
            self._catalog.drop_schema(project, name)

    def _drop(self, table: Table) -> None:
        self._rows.drop(table)
        self._catalog.drop(table)

    def truncate(self, tree: exp.TruncateTable, scope: Scope) -> None:
        """Run a TRUNCATE of a table or a partition.

        Raises:
            Refusal: it does not exist.
        """
        table = scope.table(parts_of_node(tree.expressions[0]))
        node = tree.args.get("partition")
        values = table.values(",".join(f"{p.this.name}={p.expression.name}" for p in node.expressions)) if node else ()
        with self._store.writing():
            extents = [extent for key, extent in table.extents.items() if key[: len(values)] == values]
            if node and not extents:
                table.extent(values)
            self._rows.delete(table, values)
            for extent in extents:
                self._rows.changed(table, extent)


def _node(table: Table) -> exp.Table:
    return exp.table_(table.name, db=table.schema, catalog=table.project, quoted=True)


def _copy_definition(table: Table, other: Table) -> None:
    table.columns = [Column(**vars(column)) for column in other.columns]
    table.partition_columns = [Column(**vars(column)) for column in other.partition_columns]
    table.primary_key = list(other.primary_key)
    table.properties = dict(other.properties)
    table.comment = other.comment


def _check(table: Table) -> None:
    if not table.columns:
        raise invalid(f"ODPS-0130071:Semantic analysis exception - table {table.name} has no columns")
    names = [column.name.lower() for column in table.all_columns]
    if len(set(names)) < len(names):
        raise invalid(f"ODPS-0130071:Semantic analysis exception - table {table.name} has a column twice")
    for column in table.partition_columns:
        if column.type.name not in _PARTITION_TYPES:
            raise invalid(
                f"partition column {column.name} is {column.type}; it can be {', '.join(sorted(_PARTITION_TYPES))}"
            )
    if table.primary_key and not table.is_transactional:
        raise invalid("a table with a primary key needs TBLPROPERTIES ('transactional'='true')")
    for name in table.primary_key:
        column = table.column(name)
        if column.nullable:
            raise Refusal(
                400, "ODPS-0130071", f"ODPS-0130071:Semantic analysis exception - primary key {name} must be NOT NULL"
            )
    bucket = table.properties.get("write.bucket.num", "16")
    if not bucket.isdigit() or not 1 <= int(bucket) <= 4096:
        raise invalid(f"write.bucket.num is {bucket}; it can be 1 to 4096")
