"""A script of AutoETL cut into its statements: SET 'name' = 'value' and CALL dbms_etl.sync_by_map(...).

Texts may stand between single or double quotes, as in MySQL without ANSI_QUOTES.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqlglot.dialects.mysql import MySQL
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from vector_assets.engine.errors import ConfigError, Place

SCHEMA = "dbms_etl"
PROCEDURE = "sync_by_map"
SETTING = "autoetl."
"""Prefix of the settings that only such a script has."""


class _Dialect(MySQL):
    """MySQL's words; CALL is one of them, not the beginning of a text."""

    class Tokenizer(MySQL.Tokenizer):
        """Every token by itself."""

        COMMANDS: ClassVar = set()


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted text and where it opens."""

    value: str
    start: int


@dataclass(frozen=True, slots=True)
class Setting:
    """`SET name = value`."""

    name: Text
    value: Text


@dataclass(frozen=True, slots=True)
class Call:
    """`CALL dbms_etl.sync_by_map(...)`; `start` is that of the word CALL."""

    arguments: tuple[Text, ...]
    start: int


class AutoEtlScript:
    """A text under a file's name; knows where everything stands."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file

    def place(self, offset: int) -> Place:
        """Line and column of an offset."""
        line = self.text.count("\n", 0, offset) + 1
        return Place(self.file, line, offset - (self.text.rfind("\n", 0, offset) + 1) + 1)

    def error(self, message: str, offset: int) -> ConfigError:
        """A ConfigError at an offset."""
        return ConfigError(message, self.place(offset))

    def statements(self) -> Iterator[Setting | Call]:
        """Every statement in order.

        Raises:
            ConfigError: at the token that does not fit.
        """
        for chunk in _chunks(_tokens(self.text)):
            word = chunk[0].text.upper()
            if word == "SET":
                yield self._setting(chunk)
            elif word == "CALL":
                yield self._call(chunk)
            else:
                what = f"{word} beside CALL {SCHEMA}.{PROCEDURE}: such a script holds SET and CALL statements only"
                raise self.error(f"{what}; put others into a file of their own", chunk[0].start)

    def _setting(self, chunk: Sequence[Token]) -> Setting:
        kinds = [token.token_type for token in chunk[1:]]
        if kinds != [TokenType.STRING, TokenType.EQ, TokenType.STRING]:
            raise self.error("want SET 'name' = 'value';", chunk[min(1, len(chunk) - 1)].start)
        return Setting(self._text(chunk[1]), self._text(chunk[3]))

    def _call(self, chunk: Sequence[Token]) -> Call:
        words = [token.text.lower() for token in chunk[1:4]]
        if words != [SCHEMA, ".", PROCEDURE]:
            found = "".join(words)
            raise self.error(f"CALL {found}: want CALL {SCHEMA}.{PROCEDURE}(...)", chunk[min(1, len(chunk) - 1)].start)
        if len(chunk) < 6 or chunk[4].token_type != TokenType.L_PAREN or chunk[-1].token_type != TokenType.R_PAREN:
            raise self.error(f"want {SCHEMA}.{PROCEDURE}( five texts )", chunk[-1].start)
        arguments: list[Text] = []
        inner = chunk[5:-1]
        for number, token in enumerate(inner):
            wanted = TokenType.COMMA if number % 2 else TokenType.STRING
            if token.token_type != wanted or (wanted is TokenType.COMMA and number + 1 == len(inner)):
                expected = "a comma" if number % 2 else 'a text such as "search"'
                raise self.error(f"argument {len(arguments) + 1 - number % 2}: want {expected} here", token.start)
            if wanted is TokenType.STRING:
                arguments.append(self._text(token))
        return Call(tuple(arguments), chunk[0].start)

    def _text(self, token: Token) -> Text:
        return Text(token.text, token.start)


def is_autoetl(text: str) -> bool:
    """True of a script with a CALL, or with a setting that only AutoETL has; false of what is no SQL at all."""
    try:
        chunks = list(_chunks(_tokens(text)))
    except SqlglotError:
        return False
    return any(
        chunk[0].text.upper() == "CALL"
        or (chunk[0].text.upper() == "SET" and len(chunk) > 1 and chunk[1].text.startswith(SETTING))
        for chunk in chunks
    )


def _tokens(text: str) -> list[Token]:
    return _Dialect().tokenize(text)


def _chunks(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The tokens of every statement."""
    chunk: list[Token] = []
    for token in tokens:
        if token.token_type != TokenType.SEMICOLON:
            chunk.append(token)
        elif chunk:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
