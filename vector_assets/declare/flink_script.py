"""A Flink SQL script cut into statements: syntax trees, the place of every node, the comments above each."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from vector_assets.declare.flink_dialect import Flink
from vector_assets.declare.flink_tokens import STATEMENTS, FlinkSyntaxError
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.registry import nearest

_COMMENT = re.compile(r"--(?P<line>[^\n]*)|/\*(?P<block>.*?)\*/", re.DOTALL)
_UNREADABLE = re.compile(r"(?:Missing (?P<what>\S+)|.*) from \d+:(?P<start>\d+)")
_RULER = re.compile(r"[-=*#_/\s]*")
_STAR = re.compile(r"^\s*\*? ?")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a script; `description` is the comment directly above it.

    `in_set`: it is one of the INSERTs of a STATEMENT SET.
    """

    node: exp.Expr
    start: int
    description: str
    in_set: bool = False


class Script:
    """A text under a file's name; knows where everything stands."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self._hints: dict[int, tuple[str, Place]] = {}

    def place(self, where: int | exp.Expr) -> Place:
        """Line and column of an offset, or of the first character of a syntax node."""
        offset = where if isinstance(where, int) else start_of(where)
        return Place(
            self.file, self.text.count("\n", 0, offset) + 1, offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        )

    def error(self, message: str, where: int | exp.Expr) -> ConfigError:
        """A ConfigError at `where`."""
        return ConfigError(message, self.place(where))

    def source(self, node: exp.Expr) -> str:
        """The text of an expression as the script has it."""
        return self.text[start_of(node) : node.meta["last"] + 1]

    def hint_of(self, query: exp.Expr) -> tuple[str, Place] | None:
        """The text of the hint right behind a query's SELECT, and where it stands; `statements` was called before."""
        return self._hints.get(start_of(query))

    def statements(self) -> list[Statement]:
        """Every statement in order.

        Raises:
            ConfigError: at the token that does not fit.
        """
        tokens = self._tokens()
        self._check_gaps(tokens)
        for token in tokens:
            if token.token_type == TokenType.UNKNOWN and token.text == '"':
                raise self.error("quote names with backticks and texts with single quotes", token.start)
        return list(self._statements(tokens))

    def _statements(self, tokens: list[Token]) -> Iterator[Statement]:
        """Statements outside and inside of STATEMENT SETs; what opens and closes a set is none itself."""
        opened: int | None = None
        count = 0
        for chunk, before in _chunks(tokens):
            start, form = chunk[0].start, _opening(chunk)
            if form is not None:
                if opened is not None:
                    raise self.error("a STATEMENT SET is open already; END; closes it", start)
                opened, count = start, 0
                self._check_opening(chunk, form)
                before, chunk = chunk[len(form) - 1].end + 1, chunk[len(form) :]
            elif opened is not None and _words(chunk) == ["END"]:
                if not count:
                    raise self.error("the STATEMENT SET holds no INSERT INTO", opened)
                opened = None
                continue
            if not chunk:
                continue
            if opened is not None and chunk[0].token_type != TokenType.INSERT:
                reason = "is not supported in a STATEMENT SET, which holds INSERT INTO and ends with END;"
                raise self.error(f"{chunk[0].text.upper()} {reason}", chunk[0].start)
            count += 1
            yield self._statement(chunk, before, in_set=opened is not None)
        if opened is not None:
            raise self.error("this STATEMENT SET is never closed; write END; after its last INSERT", opened)

    def _check_opening(self, chunk: list[Token], form: tuple[str, ...]) -> None:
        """EXECUTE ... BEGIN goes on with an INSERT, BEGIN STATEMENT SET ends with a semicolon."""
        if len(chunk) > len(form) and form[0] == "BEGIN":
            raise self.error("expected ; after BEGIN STATEMENT SET", chunk[len(form)].start)
        if form == _EXECUTE[:-1]:
            found = chunk[len(form)].start if len(chunk) > len(form) else chunk[-1].start
            raise self.error("expected BEGIN after EXECUTE STATEMENT SET", found)

    def _tokens(self) -> list[Token]:
        try:
            return Flink().tokenize(self.text)
        except SqlglotError as error:
            found = _UNREADABLE.fullmatch(str(error.__cause__ or error))
            if found:
                unclosed = found["what"] and f"the text that {found['what']} opens here is never closed"
                raise self.error(unclosed or "these are no hexadecimal digits", int(found["start"])) from None
            opened = self.text.rfind("/*")
            if opened > self.text.rfind("*/"):
                raise self.error("this comment is never closed", opened) from None
            raise ConfigError(f"cannot be read as SQL: {error.__cause__ or error}", Place(self.file)) from None

    def _statement(self, tokens: list[Token], before: int, *, in_set: bool) -> Statement:
        try:
            nodes = Flink().parser().parse(tokens, self.text)
        except FlinkSyntaxError as error:
            raise self.error(error.message, error.start) from None
        except RecursionError:
            raise self.error("this statement is nested too deeply", tokens[0].start) from None
        start = tokens[0].start
        # sqlglot takes a statement that begins with ELSE for the end of a block
        if not nodes or nodes[0] is None:
            raise self.error(f"{tokens[0].text.upper()} is not supported; known statements: {STATEMENTS}", start)
        return Statement(nodes[0], start, self._description(before, start), in_set)

    def _check_gaps(self, tokens: list[Token]) -> None:
        """Keep or refuse what the tokenizer passes over without a word: hints, and a comment that never ends."""
        ends = [0, *(token.end + 1 for token in tokens)]
        starts = [*(token.start for token in tokens), len(self.text)]
        for before, end, start in zip([None, *tokens], ends, starts, strict=True):
            rest = end
            for comment in _COMMENT.finditer(self.text, end, start):
                rest = comment.end()
                if (comment["block"] or "").startswith("+"):
                    if before is None or before.token_type != TokenType.SELECT:
                        reason = "hints (/*+ ... */) are supported only behind SELECT; put options into WITH (...)"
                        raise self.error(reason, comment.start())
                    self._hints[before.start] = ((comment["block"] or "")[1:], self.place(comment.start()))
            unclosed = self.text.find("/*", rest, start)
            if unclosed >= 0:
                raise self.error("this comment is never closed", unclosed)

    def _description(self, before: int, start: int) -> str:
        """The block of comments that ends on the line above `start`, without their marks."""
        block: list[str] = []
        below = start
        for comment in reversed(list(_COMMENT.finditer(self.text, before, start))):
            is_apart = self.text.count("\n", comment.end(), below) > 1
            trails = before > 0 and "\n" not in self.text[before : comment.start()]
            if is_apart or trails:
                break
            if comment["line"] is not None:
                block.insert(0, comment["line"].strip())
            else:
                block[:0] = [_STAR.sub("", line).rstrip() for line in comment["block"].splitlines()]
            below = comment.start()
        text = "\n".join("" if _RULER.fullmatch(line) else line for line in block)
        return re.sub(r"\n{3,}", "\n\n", text).strip()


_EXECUTE = ("EXECUTE", "STATEMENT", "SET", "BEGIN")
_BEGIN = ("BEGIN", "STATEMENT", "SET")


def _words(tokens: list[Token]) -> list[str]:
    return [token.text.upper() if token.token_type != TokenType.IDENTIFIER else "" for token in tokens]


def _opening(tokens: list[Token]) -> tuple[str, ...] | None:
    """The words that open a STATEMENT SET, if these do; without its BEGIN where that is missing."""
    words = tuple(_words(tokens[: len(_EXECUTE)]))
    for form in (_EXECUTE, _EXECUTE[:-1], _BEGIN):
        if words[: len(form)] == form:
            return form
    return None


def _chunks(tokens: list[Token]) -> Iterator[tuple[list[Token], int]]:
    """Tokens of every statement, with the offset at which the one before it ends."""
    chunk: list[Token] = []
    before = 0
    for token in tokens:
        if token.token_type != TokenType.SEMICOLON:
            chunk.append(token)
            continue
        if chunk:
            yield chunk, before
        chunk, before = [], token.end + 1
    if chunk:
        yield chunk, before


def start_of(node: exp.Expr) -> int:
    """Offset of the first character of a syntax node; of its keyword where it has one in its middle."""
    here: exp.Expr | None = node
    while here is not None:
        if "start" in here.meta:
            return int(here.meta["start"])
        starts = [part.meta["start"] for part in here.walk() if "start" in part.meta]
        if starts:
            return int(min(starts))
        here = here.parent
    return 0


def hint(name: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)` for a name of the script; Flink's names are told apart by upper and lower case."""
    names = list(known)
    twin = next((other for other in names if other.lower() == name.lower()), None)
    return f" (did you mean {twin!r}?)" if twin else nearest(name, names)
