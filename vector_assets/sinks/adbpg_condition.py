"""A condition that somebody typed, checked before it goes into a statement: one boolean expression, nothing else."""

import sqlglot
from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError

from vector_assets.engine.errors import ConfigError

_FORBIDDEN: tuple[tuple[type[exp.Expr], str], ...] = (
    (exp.Query, "a SELECT"),
    (exp.Subquery, "a SELECT"),
    (exp.Command, "a statement"),
    (exp.DDL, "a statement"),
    (exp.DML, "a statement"),
    (exp.Parameter, "a parameter"),
    (exp.Placeholder, "a parameter"),
    (exp.AggFunc, "an aggregate"),
    (exp.Window, "a window function"),
)
_FUNCTIONS = ("pg_", "lo_", "dblink", "set_config", "current_setting", "nextval", "setval", "query_to_", "txid_")
"""Beginnings of functions that do more than compute, or tell of the server."""


def check_condition(text: str, place: str) -> None:
    """Refuse what is not one boolean expression over the table's columns; the server checks the rest.

    Raises:
        ConfigError: several statements, a comment, a SELECT, a parameter, or a function with effects.
    """
    where = f"{place}: the condition {text!r}"
    try:
        tokens = Postgres().tokenize(text)
        parsed = [each for each in sqlglot.parse(text, read="postgres") if each is not None]
    except (SqlglotError, RecursionError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ConfigError(f"{where} cannot be read as SQL: {reason}") from None
    if len(parsed) != 1 or ";" in {token.text for token in tokens}:
        raise ConfigError(f"{where} is not one expression")
    if any(token.comments for token in tokens):
        raise ConfigError(f"{where} holds a comment")
    for node in parsed[0].walk():
        for kind, name in _FORBIDDEN:
            if isinstance(node, kind):
                raise ConfigError(f"{where} holds {name}; want an expression over the columns, such as price < 10")
        name = node.name.lower() if isinstance(node, exp.Anonymous) else ""
        if name.startswith(_FUNCTIONS):
            raise ConfigError(f"{where} calls {name}(), which is not allowed in a search")
