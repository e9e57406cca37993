"""One expression of Flink SQL becomes DuckDB text with Flink's type; every kind of node has a rule, or is refused."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from sqlglot import exp

from vector_assets.declare import flink_types as types
from vector_assets.declare.flink_casts import convert, text
from vector_assets.declare.flink_script import Script, hint
from vector_assets.declare.flink_types import STRING, Pseudo, Type, quoted, shown
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import Column, LogicalType


@dataclass(frozen=True, slots=True)
class Typed:
    """DuckDB text and the Flink type of its value; `literal` is the text of a string literal or a number."""

    sql: str
    type: Type
    literal: str | None = None

    @property
    def name(self) -> str:
        """Name of the type's root; `NULL` and `INTERVAL` for the types that no column can have."""
        return self.type.value if isinstance(self.type, Pseudo) else self.type.name

    def has(self, *names: str) -> bool:
        """True when the type's root is one of `names`, or the value is the literal NULL."""
        return self.name in names or self.type is Pseudo.NULL


PROCTIME = Typed("now()", LogicalType("TIMESTAMP_LTZ", 3))
"""What a column computed AS PROCTIME() is: the time of a lookup join, and nothing that could be selected."""


class Translator:
    """Translates expressions over the columns of one table; a computed column is written out where it is named."""

    def __init__(
        self,
        rules: Mapping[type[exp.Expr], "Rule"],
        script: Script,
        table: str,
        columns: Mapping[str, Column],
        computed: Mapping[str, Typed],
        alias: str,
    ) -> None:
        self.rules = rules
        self.script = script
        self.table = table
        self.columns = columns
        self.computed = computed
        self.alias = alias

    def translate(self, node: exp.Expr) -> Typed:
        """The expression as DuckDB text, and its type.

        Raises:
            ConfigError: at the part that is unknown, unsupported or of the wrong type.
        """
        rule = self.rules.get(type(node))
        if rule is None:
            raise self.error(f"this kind of expression ({type(node).__name__}) is not supported", node)
        return rule(self, node)

    def predicate(self, node: exp.Expr) -> Typed:
        """An expression that has to be a BOOLEAN."""
        typed = self.translate(node)
        if not typed.has("BOOLEAN"):
            raise self.error(f"want a condition (BOOLEAN), found {shown(typed.type)}", node)
        return typed

    def string(self, node: exp.Expr, what: str) -> Typed:
        """An argument that has to be a string."""
        typed = self.translate(node)
        if not typed.has(*types.STRINGS):
            raise self.error(f"{what} wants a string, found {shown(typed.type)}; use CAST", node)
        return Typed(convert(typed.sql, typed.type, STRING), STRING, typed.literal)

    def integer(self, node: exp.Expr, what: str) -> Typed:
        """An argument that has to be an integer."""
        typed = self.translate(node)
        if not typed.has(*types.INTEGERS):
            raise self.error(f"{what} wants an integer, found {shown(typed.type)}; use CAST", node)
        return typed

    def error(self, message: str, node: exp.Expr) -> ConfigError:
        """A ConfigError at the node."""
        return self.script.error(message, node)

    def common(self, nodes: list[exp.Expr], what: str) -> tuple[list[str], LogicalType]:
        """The nodes' texts converted to the type they share."""
        typed = [self.translate(node) for node in nodes]
        kind = types.common_type([part.type for part in typed])
        if kind is None:
            found = ", ".join(dict.fromkeys(shown(part.type) for part in typed))
            raise self.error(f"{what}: the types {found} have nothing in common; use CAST", nodes[0])
        return [convert(part.sql, part.type, kind) for part in typed], kind

    def call(self, name: str, nodes: list[exp.Expr], place: exp.Expr) -> Typed:
        """A call of the function `name`, whatever its syntax was."""
        return self.translate(exp.Anonymous(this=name, expressions=nodes).update_positions(place))

    def logical_type(self, node: exp.DataType) -> LogicalType:
        """The type a CAST names."""
        try:
            return types.logical_type(node)
        except ConfigError as error:
            raise self.error(error.message, node) from None

    def column(self, node: exp.Column) -> Typed:
        """A column, by its name alone or behind the table's; further parts are fields of a ROW."""
        parts = [part for part in node.parts if isinstance(part, exp.Identifier)]
        if any(isinstance(part, exp.Star) for part in node.parts):
            raise self.error("* is only possible as a column of SELECT", node)
        known = self.columns.get(parts[0].name)
        if len(parts) > 1 and parts[0].name == self.alias and not (known and known.type.name == "ROW"):
            parts = parts[1:]
        first, *fields = parts
        found = self.columns.get(first.name)
        if found is None:
            self._refuse_column(first, is_path=bool(fields))
        self._refuse_clock(found.name, first)
        typed = self.named(found)
        for field in fields:
            typed = self.field(typed, field)
        return typed

    def starred(self, table: str, node: exp.Expr) -> Iterable[Column]:
        """The columns that `*` or `table.*` stands for."""
        if table and table != self.alias:
            raise self.error(f"{table} is not the source of this query, which is {self.alias}", node)
        for column in self.columns.values():
            self._refuse_clock(column.name, node)
        return self.columns.values()

    def plain(self, node: exp.Column) -> Column | None:
        """The column that is named, None when the name may be a field's."""
        return self.columns.get(node.name)

    def reads(self, node: exp.Expr) -> frozenset[str]:
        """The columns that an expression names; a computed column counts as itself."""
        return frozenset(part.name for part in node.find_all(exp.Identifier) if part.name in self.columns)

    def _refuse_clock(self, name: str, node: exp.Expr) -> None:
        if self.computed.get(name) is PROCTIME:
            raise self.error(f"column {name}: {nondeterministic('PROCTIME()')}", node)

    def named(self, column: Column) -> Typed:
        """The value of one of the table's columns."""
        computed = self.computed.get(column.name)
        return Typed(f"({computed.sql})" if computed else quoted(column.name), types.nullable(column.type))

    def _refuse_column(self, node: exp.Identifier, *, is_path: bool) -> NoReturn:
        if node.name.upper() in _TIMES:
            raise self.error(nondeterministic(node.name.upper()), node)
        what = (
            f"{node.name} is neither the source ({self.alias}) nor one of its columns"
            if is_path
            else (f"table {self.table} has no column {node.name}")
        )
        raise self.error(f"{what}{hint(node.name, self.columns)}; known: {', '.join(self.columns)}", node)

    def field(self, typed: Typed, node: exp.Expr) -> Typed:
        """A field of a ROW."""
        kind = typed.type
        if not isinstance(kind, LogicalType) or kind.name != "ROW":
            raise self.error(f"{node.name} cannot be taken from a value of type {shown(kind)}: it is no ROW", node)
        if node.name not in kind.child_names:
            known = ", ".join(kind.child_names)
            raise self.error(
                f"the ROW has no field {node.name}{hint(node.name, kind.child_names)}; known: {known}", node
            )
        child = kind.children[kind.child_names.index(node.name)]
        return Typed(f"struct_extract({typed.sql}, {text(node.name)})", types.nullable(child))


_TIMES = {"LOCALTIME", "LOCALTIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP"}


def nondeterministic(name: str) -> str:
    """Why a function whose value changes from call to call is refused."""
    return (
        f"{name} is refused: it has another value in every run, and a replay must give the same rows; "
        "use a time that is in the record, or a METADATA column of the source (such as Kafka's 'timestamp')"
    )


Rule = Callable[[Translator, Any], Typed]
"""What a kind of syntax node becomes."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of `least` to `most` arguments (None: any number), and how a call of it is built."""

    least: int
    most: int | None
    build: Callable[[Translator, str, list[exp.Expr]], Typed]

    def call(self, t: Translator, name: str, nodes: list[exp.Expr], place: exp.Expr) -> Typed:
        """The call, after a look at the number of its arguments."""
        if len(nodes) < self.least or (self.most is not None and len(nodes) > self.most):
            wanted = f"{self.least} to {self.most}" if self.most else f"at least {self.least}"
            wanted = str(self.least) if self.most == self.least else wanted
            raise t.error(f"{name} takes {wanted} argument(s), found {len(nodes)}", place)
        return self.build(t, name, nodes)
