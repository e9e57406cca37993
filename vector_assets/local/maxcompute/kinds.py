"""Column definitions of a parsed CREATE or ALTER TABLE."""

from sqlglot import exp

from vector_assets.local.maxcompute.catalog import Column
from vector_assets.local.maxcompute.refusal import invalid
from vector_assets.local.maxcompute.types import Type, parse

_NAMES = {"TEXT": "string", "TIMESTAMPNTZ": "timestamp_ntz", "VARBINARY": "binary"}


def type_of(kind: exp.DataType) -> Type:
    """The type of a parsed type.

    Raises:
        Refusal: MaxCompute has no such type.
    """
    inner = kind.expressions
    name = _NAMES.get(kind.this.name, kind.this.name.lower()) if hasattr(kind.this, "name") else str(kind.this).lower()
    match name:
        case "array":
            return Type(name, fields=(("element", type_of(inner[0])),))
        case "map":
            return Type(name, fields=(("key", type_of(inner[0])), ("value", type_of(inner[1]))))
        case "struct":
            return Type(name, fields=tuple((field.name, type_of(field.args["kind"])) for field in inner))
    numbers = f"({','.join(part.name for part in inner)})" if inner else ""
    return parse(name + numbers)


def columns_of(nodes: list[exp.Expr]) -> list[Column]:
    """The columns among the parts of a definition.

    Raises:
        Refusal: a type is unknown, a name comes twice.
    """
    columns = [_column(node) for node in nodes if isinstance(node, exp.ColumnDef)]
    names = [column.name.lower() for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise invalid(f"ODPS-0130071:Semantic analysis exception - column {', '.join(twice)} is defined twice")
    return columns


def _column(node: exp.ColumnDef) -> Column:
    if not node.args.get("kind"):
        raise invalid(f"ODPS-0130161:Parse exception - column {node.name} has no type")
    column = Column(node.name, type_of(node.args["kind"]))
    for constraint in node.args.get("constraints") or []:
        match constraint.args["kind"]:
            case exp.NotNullColumnConstraint() as found:
                column.nullable = bool(found.args.get("allow_null"))
            case exp.CommentColumnConstraint() as found:
                column.comment = found.this.name
            case other:
                raise invalid(f"column {node.name}: {other.sql()} is not supported here")
    return column
