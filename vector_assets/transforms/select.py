"""The parts of a SELECT over a batch, and the same without its subquery of computed columns."""

from collections.abc import Iterable
from typing import NamedTuple, Self

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

_DIALECT = "duckdb"


class Select(NamedTuple):
    """A SELECT in DuckDB's SQL: (expression, output name) pairs, what to select from, and the condition."""

    projections: tuple[tuple[str, str], ...]
    relation: str
    where: str | None

    def text(self, columns: Iterable[str], *, where: bool = True) -> str:
        """The statement with other columns."""
        condition = f" WHERE ({self.where})" if where and self.where is not None else ""
        return f"SELECT {', '.join(columns)} FROM {self.relation}{condition}"

    @property
    def is_row_wise(self) -> bool:
        """True when a record gives one row or none, whatever the other records are."""
        return self.relation.strip().strip('"').lower() == "source"

    def inlined(self) -> Self:
        """The same over `source` alone where the relation only adds computed columns to it, else itself."""
        if self.is_row_wise:
            return self
        try:
            computed = _computed(self.relation)
            if computed is None:
                return self
            projections = tuple((_replaced(text, computed), name) for text, name in self.projections)
            where = None if self.where is None else _replaced(self.where, computed)
        except SqlglotError:
            return self
        return self._replace(projections=projections, relation="source", where=where)


def _computed(relation: str) -> dict[str, exp.Expr] | None:
    """The columns by name that `(SELECT *, ... AS name FROM source)` adds; None for any other relation."""
    statement = sqlglot.parse_one(f"SELECT 1 FROM {relation}", dialect=_DIALECT)
    outer = statement.find(exp.From)
    inner = outer.this.this if outer and isinstance(outer.this, exp.Subquery) else None
    if not isinstance(inner, exp.Select):
        return None
    names = {key.rstrip("_") for key, value in inner.args.items() if value}
    origin = inner.find(exp.From)
    star, *added = inner.expressions
    if names != {"expressions", "from"} or origin is None or origin.sql(_DIALECT) != "FROM source":
        return None
    if not isinstance(star, exp.Star) or not all(isinstance(one, exp.Alias) for one in added):
        return None
    return {one.alias.lower(): one.this for one in added}


def _replaced(text: str, computed: dict[str, exp.Expr]) -> str:
    def expression_of(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column) and node.name.lower() in computed:
            return exp.Paren(this=computed[node.name.lower()].copy())
        return node

    return sqlglot.parse_one(text, dialect=_DIALECT).transform(expression_of).sql(_DIALECT)
