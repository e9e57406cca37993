"""Statements: split, told apart, run."""

import logging
import re
from dataclasses import dataclass

import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from vector_assets.local.maxcompute import query
from vector_assets.local.maxcompute.alter import Alterations
from vector_assets.local.maxcompute.catalog import Catalog
from vector_assets.local.maxcompute.ddl import Definitions
from vector_assets.local.maxcompute.insert import Inserts
from vector_assets.local.maxcompute.names import Scope
from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.maxcompute.rows import Rows
from vector_assets.local.maxcompute.show import show
from vector_assets.local.maxcompute.store import Store

DIALECT = "maxcompute"
"""The dialect of the package sqlglot-maxcompute, which sqlglot finds by its entry point."""

_SET = re.compile(r"^\s*SET\s+([\w.]+)\s*=\s*(.*?)\s*$", re.I | re.S)
_READS = (exp.Query, exp.Values)

# what the parser gives up on is refused here by name
logging.getLogger("sqlglot").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Answer:
    """What a statement gives: rows, or text."""

    rows: pa.Table | None = None
    text: str = ""


class Sql:
    """Runs scripts of statements; the answer is the last one's."""

    def __init__(self, store: Store, catalog: Catalog, rows: Rows) -> None:
        self._store = store
        self._alterations = Alterations(store, catalog, rows)
        self._inserts = Inserts(store, catalog, rows)
        self._definitions = Definitions(store, catalog, rows, self._inserts)

    def run(self, script: str, scope: Scope) -> Answer:
        """Run every statement in order.

        Raises:
            Refusal: one of them is wrong; those before it have run.
        """
        answer = Answer()
        for statement in split(script):
            found = _SET.match(statement)
            if found:
                scope.settings[found[1]] = found[2]
                continue
            answer = self._one(statement, scope)
        return answer

    def _one(self, statement: str, scope: Scope) -> Answer:
        with self._store.lock:
            text = show(statement, scope)
            if text is not None:
                return Answer(text=text)
            if self._alterations.by_text(statement, scope):
                return Answer()
            tree = parsed(statement)
            if not isinstance(tree, _READS):
                self._change(tree, scope)
                return Answer()
            localized = query.localized(tree, scope)
        return Answer(rows=query.run(self._store, localized))

    def _change(self, tree: exp.Expr, scope: Scope) -> None:
        match tree:
            case exp.Create():
                self._definitions.create(tree, scope)
            case exp.Drop():
                self._definitions.drop(tree, scope)
            case exp.TruncateTable():
                self._definitions.truncate(tree, scope)
            case exp.Alter():
                self._alterations.by_tree(tree, scope)
            case exp.Insert():
                self._inserts.insert(tree, scope)
            case exp.Delete() | exp.Update():
                self._inserts.change(tree, scope)
            case other:
                raise Refusal(
                    400, "ODPS-0130161", f"ODPS-0130161:[1,1] Parse exception - {_head(other)} is not supported here"
                )


def split(script: str) -> list[str]:
    """The statements of a script, without their semicolons.

    Raises:
        Refusal: a text or comment does not end.
    """
    try:
        tokens = sqlglot.tokenize(script, read=DIALECT)
    except TokenError as error:
        raise _parse_error(str(error)) from error
    statements, start = [], 0
    for token in tokens:
        if token.token_type == sqlglot.TokenType.SEMICOLON:
            statements.append(script[start : token.start])
            start = token.end + 1
    statements.append(script[start:])
    return [statement.strip() for statement in statements if statement.strip()]


def parsed(statement: str) -> exp.Expr:
    """The tree of a statement.

    Raises:
        Refusal: it cannot be parsed.
    """
    try:
        return sqlglot.parse_one(statement, read=DIALECT)
    except ParseError as error:
        where = error.errors[0] if error.errors else {}
        raise _parse_error(
            f"invalid token {where.get('highlight') or ''!r}: {where.get('description') or error}",
            where.get("line") or 1,
            where.get("col") or 1,
        ) from error


def _parse_error(message: str, line: int = 1, column: int = 1) -> Refusal:
    return Refusal(400, "ParseError", f"ODPS-0130161:[{line},{column}] Parse exception - {message}")


def _head(tree: exp.Expr) -> str:
    return str(tree.this if isinstance(tree, exp.Command) else tree.key).upper()
