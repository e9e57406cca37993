"""A psql script cut into statements, each recognised as far as we treat it differently from the others. Pure.

Statements are told apart by sqlglot's PostgreSQL tokenizer (texts, dollar quotes and comments may hold semicolons);
what is not recognised here stays as it was written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from vector_assets.engine.errors import ConfigError, Place

_CONNECT = frozenset({"c", "connect"})
_VECTOR_TYPES = frozenset({"vector", "halfvec", "sparsevec"})
_VECTOR_METHODS = frozenset({"hnsw", "ivfflat"})


@dataclass(frozen=True, slots=True)
class Index:
    r"""A CREATE INDEX, cut at its table: `rest` is everything behind that.

    `table` is the name's parts as the catalog has them, `written` as the script has them. `name` is None for an index
    that the server is to name.
    """

    is_unique: bool
    if_not_exists: bool
    name: str | None
    table: tuple[str, ...]
    written: str
    method: str
    head: str
    rest: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a script, without its semicolon.

    `connect` is the database of a `\\c`, `database` that of a CREATE DATABASE, `extension` that of a CREATE EXTENSION.
    """

    place: Place
    text: str
    connect: str | None = None
    database: str | None = None
    extension: str | None = None
    index: Index | None = None
    needs_vectors: bool = False


def read_script(text: str, file: str) -> list[Statement]:
    """Every statement in order.

    Raises:
        ConfigError: at the place of what cannot be read, or of a psql command other than `\\c`.
    """
    try:
        tokens = Postgres().tokenize(text)
    except SqlglotError as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ConfigError(f"cannot be read as SQL: {reason}", Place(file)) from None
    found = [_statement(text, chunk, _place(text, file, chunk[0].start)) for chunk in _chunks(text, file, tokens)]
    if not found:
        raise ConfigError("the file holds no statement", Place(file))
    return found


def _place(text: str, file: str, offset: int) -> Place:
    return Place(file, text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)


def _chunks(text: str, file: str, tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Tokens of every statement; a psql command ends with its line, not with a semicolon."""
    chunk: list[Token] = []
    line_end = -1
    for token in tokens:
        if chunk and chunk[0].token_type == TokenType.BACKSLASH and token.start > line_end:
            yield chunk
            chunk = []
        if token.token_type == TokenType.BACKSLASH:
            if chunk:
                raise ConfigError(
                    "a psql command inside a statement: is the semicolon of the statement before it missing?",
                    _place(text, file, token.start),
                )
            line_end = text.find("\n", token.start) if "\n" in text[token.start :] else len(text)
        if token.token_type == TokenType.SEMICOLON:
            if chunk:
                yield chunk
            chunk = []
        else:
            chunk.append(token)
    if chunk:
        yield chunk


def _statement(text: str, tokens: list[Token], place: Place) -> Statement:
    written = text[tokens[0].start : tokens[-1].end + 1]
    if tokens[0].token_type == TokenType.BACKSLASH:
        return Statement(place, written, connect=_database_of(tokens, place))
    words = [_word(token) for token in tokens]
    if words[:2] == ["CREATE", "DATABASE"] and len(tokens) > 2:
        return Statement(place, written, database=name_of(tokens[2]))
    if words[:2] == ["CREATE", "EXTENSION"]:
        named = tokens[5:] if words[2:5] == ["IF", "NOT", "EXISTS"] else tokens[2:]
        return Statement(place, written, extension=name_of(named[0]) if named else None)
    index = _index(text, tokens, words)
    needs = index.method in _VECTOR_METHODS if index else _names_vectors(tokens, words)
    return Statement(place, written, index=index, needs_vectors=needs or (index is not None and index.method == "ann"))


def _database_of(tokens: list[Token], place: Place) -> str:
    r"""The database of `\c db`."""
    name = tokens[1].text if len(tokens) > 1 else ""
    if name not in _CONNECT or len(tokens) != 3:
        given = " ".join(token.text for token in tokens[1:])
        raise ConfigError(rf"psql's \{given} is not known here; known: \c DATABASE", place)
    return tokens[2].text


def _names_vectors(tokens: Sequence[Token], words: Sequence[str]) -> bool:
    """True for a statement about tables that mentions one of pgvector's types."""
    is_about_tables = words[0] in {"CREATE", "ALTER"} and "TABLE" in words[:6]
    return is_about_tables and any(name_of(token) in _VECTOR_TYPES for token in tokens)


def _index(text: str, tokens: list[Token], words: list[str]) -> Index | None:
    at = 1 + (words[1:2] == ["UNIQUE"])
    if words[0] != "CREATE" or words[at : at + 1] != ["INDEX"] or "ON" not in words:
        return None
    on = words.index("ON")
    middle = words[at + 1 : on]
    has_condition = "EXISTS" in middle
    names = [token for token in tokens[at + 1 : on] if _word(token) not in {"CONCURRENTLY", "IF", "NOT", "EXISTS"}]
    first = on + 1 + (words[on + 1 : on + 2] == ["ONLY"])
    end = first
    while end + 2 < len(tokens) and tokens[end + 1].token_type == TokenType.DOT:
        end += 2
    if end + 1 >= len(tokens) or len(names) > 1:
        return None
    method = name_of(tokens[end + 2]) if words[end + 1] == "USING" and end + 2 < len(tokens) else "btree"
    return Index(
        is_unique=at == 2,
        if_not_exists=has_condition,
        name=name_of(names[0]) if names else None,
        table=tuple(name_of(token) for token in tokens[first : end + 1 : 2]),
        written=text[tokens[first].start : tokens[end].end + 1],
        method=method,
        head=text[tokens[0].start : tokens[end].end + 1],
        rest=text[tokens[end + 1].start : tokens[-1].end + 1],
    )


def _word(token: Token) -> str:
    """The token as a keyword; nothing for quoted names and texts."""
    return "" if token.token_type in {TokenType.IDENTIFIER, TokenType.STRING} else token.text.upper()


def name_of(token: Token) -> str:
    """The name that a token means: folded to lower case unless quoted, as PostgreSQL does."""
    return token.text if token.token_type == TokenType.IDENTIFIER else token.text.lower()


def without_distribution(text: str) -> tuple[str, str | None]:
    """A CREATE TABLE without Greenplum's DISTRIBUTED clause, and the clause; other statements as they are."""
    tokens = Postgres().tokenize(text)
    words = [_word(token) for token in tokens]
    if words[0] != "CREATE" or not {"TABLE", "VIEW"} & set(words[:6]):
        return text, None
    depth = 0
    for at, token in enumerate(tokens):
        depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
        if depth == 0 and words[at] == "DISTRIBUTED" and words[at + 1 : at + 2]:
            end = _end_of_distribution(tokens, words, at)
            if end is not None:
                clause = text[token.start : tokens[end].end + 1]
                return (text[: token.start].rstrip() + text[tokens[end].end + 1 :]).rstrip(), clause
    return text, None


def _end_of_distribution(tokens: Sequence[Token], words: Sequence[str], at: int) -> int | None:
    if words[at + 1] in {"RANDOMLY", "REPLICATED"}:
        return at + 1
    if words[at + 1] != "BY":
        return None
    return next((n for n in range(at + 2, len(tokens)) if tokens[n].token_type == TokenType.R_PAREN), None)
