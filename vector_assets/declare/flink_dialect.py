"""Flink SQL as a sqlglot dialect: what Flink's grammar takes, with the place of every token kept.

Functions stay as they are written (`exp.Anonymous`): `flink_functions` says what each of them means.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, TypeVar

from sqlglot import exp, parser
from sqlglot.dialects.dialect import Dialect
from sqlglot.tokenizer_core import Token, TokenType

from vector_assets.declare.flink_tokens import (
    LITERALS,
    NESTED,
    SIZED,
    STATEMENTS,
    TYPES,
    FlinkSyntaxError,
    FlinkTokenizer,
    MetadataColumnConstraint,
    Watermark,
)

T = TypeVar("T")
E = TypeVar("E", bound=exp.Expr | None)


_LITERAL_TYPES = {TokenType.DATE, TokenType.TIME, TokenType.TIMESTAMP}
Modifier = Callable[[parser.Parser], tuple[str, Any]]


def _at_its_keyword(inner: Modifier) -> Modifier:
    def modifier(self: parser.Parser) -> tuple[str, Any]:
        start = self._curr
        key, node = inner(self)
        if isinstance(node, exp.Expr):
            node.update_positions(start)
        return key, node

    return modifier


class FlinkParser(parser.Parser):
    """CREATE TABLE, INSERT INTO and SET as Flink spells them; queries as sqlglot knows them."""

    FUNCTIONS: ClassVar = {}
    NO_PAREN_FUNCTION_PARSERS: ClassVar = {"CASE": parser.Parser.NO_PAREN_FUNCTION_PARSERS["CASE"]}
    FUNCTION_PARSERS: ClassVar = {
        name: parser.Parser.FUNCTION_PARSERS[name]
        for name in ("CAST", "TRY_CAST", "CEIL", "EXTRACT", "FLOOR", "OVERLAY", "POSITION", "SUBSTRING", "TRIM")
    } | {"JSON_VALUE": lambda self: self._parse_json_scalar()}
    STATEMENT_PARSERS: ClassVar = {
        TokenType.CREATE: lambda self: self._parse_create(),
        TokenType.INSERT: lambda self: self._parse_insert(),
        TokenType.SET: lambda self: self._parse_set(),
    }
    QUERY_MODIFIER_PARSERS: ClassVar = {
        token: _at_its_keyword(inner) for token, inner in parser.Parser.QUERY_MODIFIER_PARSERS.items()
    }

    def raise_error(self, message: str, token: Token = parser.SENTINEL_NONE) -> NoReturn:
        """Raise what went wrong in our words, at `token` or where the parser stands."""
        blamed = token or self._curr or self._prev
        found = f"found {blamed.text!r}" if token or self._curr else f"the statement ends after {blamed.text!r}"
        if message.startswith(("Required argument", "Required keyword")):
            message = "an expression is missing"
        elif message.startswith("Invalid expression"):
            message = "the statement should end here"
        elif message.startswith(("Expecting ", "Expected ")):
            message = f"expected {message.partition(' ')[2].partition(' but got ')[0]}"
        raise FlinkSyntaxError(f"{message}; {found}", blamed.start)

    def _refuse(self, message: str, token: Token) -> NoReturn:
        raise FlinkSyntaxError(message, token.start)

    def _placed(self, start: Token, node: E) -> E:
        if isinstance(node, exp.Expr) and start and "start" not in node.meta:
            node.update_positions(start)
        return node

    def _parse_csv(self, parse_method: Callable[[], T | None], sep: TokenType = TokenType.COMMA) -> list[T]:
        def item() -> T | None:
            separator = self._prev
            parsed = parse_method()
            if parsed is None and separator.token_type == sep:
                self.raise_error("something is missing after the comma")
            return parsed

        return super()._parse_csv(item, sep)

    def _parse_name(self, what: str) -> exp.Identifier:
        token = self._curr
        quoted = token.token_type == TokenType.IDENTIFIER
        is_name = quoted or (token.token_type not in LITERALS and token.text.isidentifier())
        if not token or not is_name:
            self.raise_error(f"expected {what}")
        self._advance()
        return self.expression(exp.Identifier(this=token.text, quoted=quoted), token)

    def _parse_text(self, what: str) -> exp.Literal:
        token = self._curr
        if not self._match(TokenType.STRING):
            self.raise_error(f"expected {what} in single quotes")
        return self.expression(exp.Literal.string(token.text), token)

    def _expect(self, text: str) -> None:
        if not self._match_text_seq(*text.split()):
            self.raise_error(f"expected {text}")

    # statements

    def _parse_statement(self) -> exp.Expr | None:
        if self._index == 0 and self._curr.token_type not in self.STATEMENT_PARSERS:
            words = [token.text.upper() for token in (self._curr, self._next) if token]
            self._refuse(f"{words[0]} is not supported; known statements: {STATEMENTS}", self._curr)
        return super()._parse_statement()

    def _parse_create(self) -> exp.Create:
        start = self._prev
        temporary = self._match(TokenType.TEMPORARY)
        if not self._match(TokenType.TABLE):
            what = " ".join(word for word in ("CREATE", temporary and "TEMPORARY", self._curr.text.upper()) if word)
            self._refuse(f"{what} is not supported; known statements: {STATEMENTS}", start)
        exists = self._parse_exists(not_=True)
        table = exp.Table(this=self._parse_name("the table's name"))
        self._refuse_path()
        if not self._match(TokenType.L_PAREN):
            self.raise_error("expected the columns of the table in parentheses")
        schema = exp.Schema(this=table, expressions=self._parse_csv(self._parse_element))
        self._match_r_paren()
        properties: list[exp.Expr] = [exp.TemporaryProperty()] if temporary else []
        if self._match(TokenType.COMMENT):
            properties.append(exp.SchemaCommentProperty(this=self._parse_text("the table's comment")))
        if self._match(TokenType.PARTITION_BY):
            properties.append(self._parse_partitions())
        properties += self._parse_options()
        return self.expression(
            exp.Create(this=schema, kind="TABLE", exists=exists, properties=exp.Properties(expressions=properties))
        )

    def _parse_partitions(self) -> exp.PartitionedByProperty:
        if not self._match(TokenType.L_PAREN):
            self.raise_error("expected the columns of PARTITIONED BY in parentheses")
        columns = self._parse_csv(lambda: self._parse_name("a column's name"))
        self._match_r_paren()
        return exp.PartitionedByProperty(this=exp.Tuple(expressions=columns))

    def _refuse_path(self) -> None:
        if self._match(TokenType.DOT, advance=False):
            self._refuse("catalogs and databases are not supported: name the table with one word", self._prev)

    def _parse_options(self) -> list[exp.Property]:
        if self._curr and not self._match(TokenType.WITH, advance=False):
            self._refuse(f"{self._curr.text.upper()} is not supported in CREATE TABLE; expected WITH (...)", self._curr)
        self._expect("WITH")
        self._expect("(")
        options = self._parse_csv(self._parse_option)
        self._match_r_paren()
        return options

    def _parse_option(self) -> exp.Property:
        key = self._parse_text("an option's name")
        self._expect("=")
        return self.expression(exp.Property(this=key, value=self._parse_text(f"the value of {key.name!r}")))

    def _parse_element(self) -> exp.Expr:
        if self._match_set((TokenType.PRIMARY_KEY, TokenType.CONSTRAINT), advance=False):
            return self._parse_key()
        if self._curr.text.upper() == "WATERMARK" and self._next.token_type == TokenType.FOR:
            return self._parse_watermark()
        name = self._parse_name("a column's name")
        constraints: list[exp.Expr] = []
        kind = None
        if self._match(TokenType.ALIAS):
            constraints.append(exp.ComputedColumnConstraint(this=self._parse_required("the column's expression")))
        else:
            kind = self._parse_flink_type()
            constraints += self._parse_column_marks()
        if self._match(TokenType.COMMENT):
            constraints.append(exp.CommentColumnConstraint(this=self._parse_text("the column's comment")))
        wrapped = [exp.ColumnConstraint(kind=constraint) for constraint in constraints]
        return self.expression(exp.ColumnDef(this=name, kind=kind, constraints=wrapped))

    def _parse_required(self, what: str) -> exp.Expr:
        start = self._curr
        node = self._parse_disjunction()
        if node is None:
            self.raise_error(f"expected {what}")
        node.meta["last"] = self._prev.end
        return self._placed(start, node)

    def _parse_column_marks(self) -> list[exp.Expr]:
        if self._match(TokenType.PRIMARY_KEY):
            key = self._prev
            self._parse_not_enforced(key)
            return [exp.PrimaryKeyColumnConstraint().update_positions(key)]
        if self._match_text_seq("METADATA"):
            source = self._parse_text("the metadata's key") if self._match(TokenType.FROM) else None
            return [MetadataColumnConstraint(this=source, virtual=self._match_text_seq("VIRTUAL"))]
        return []

    def _parse_key(self) -> exp.PrimaryKey:
        if self._match(TokenType.CONSTRAINT):
            self._parse_name("the constraint's name")
        key = self._curr
        if not self._match(TokenType.PRIMARY_KEY):
            self._refuse("PRIMARY KEY is the only constraint that is supported", key)
        self._expect("(")
        names = self._parse_csv(lambda: self._parse_name("a column of the key"))
        self._match_r_paren()
        self._parse_not_enforced(key)
        return self.expression(exp.PrimaryKey(expressions=names), key)

    def _parse_not_enforced(self, key: Token) -> None:
        if not self._match_text_seq("NOT", "ENFORCED"):
            self._refuse("PRIMARY KEY must be NOT ENFORCED: the target enforces its own keys, Flink SQL does not", key)

    def _parse_watermark(self) -> Watermark:
        start = self._curr
        self._advance(2)
        column = self._parse_name("the watermark's column")
        self._expect("AS")
        return self.expression(Watermark(this=column, expression=self._parse_required("an expression")), start)

    def _parse_set(self, unset: bool = False, tag: bool = False) -> exp.Set:  # noqa: FBT001, FBT002
        name = self._parse_text("a setting's name")
        self._expect("=")
        item = exp.SetItem(this=exp.EQ(this=name, expression=self._parse_text("the setting's value")))
        return self.expression(exp.Set(expressions=[item], unset=unset, tag=tag))

    def _parse_insert(self) -> exp.Insert:
        if self._match(TokenType.OVERWRITE, advance=False):
            self._refuse("INSERT OVERWRITE is not supported: a pipeline adds to its target", self._curr)
        self._expect("INTO")
        target: exp.Expr = exp.Table(this=self._parse_name("the sink table's name"))
        self._refuse_path()
        if self._match(TokenType.PARTITION, advance=False):
            self._refuse("INSERT INTO ... PARTITION is not supported", self._curr)
        queries = {TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN}
        if self._match(TokenType.L_PAREN, advance=False) and self._next.token_type not in queries:
            self._advance()
            target = exp.Schema(
                this=target, expressions=self._parse_csv(lambda: self._parse_name("a column of the sink table"))
            )
            self._match_r_paren()
        if self._match(TokenType.VALUES, advance=False):
            self._refuse("INSERT INTO ... VALUES is not supported: a pipeline reads from a source table", self._curr)
        query = self._parse_ddl_select() if self._match_set(queries, advance=False) else None
        if query is None:
            self.raise_error("expected SELECT")
        return self.expression(exp.Insert(this=target, expression=query))

    # types

    def _parse_flink_type(self) -> exp.DataType:
        token = self._curr
        word = " ".join(token.text.upper().split())
        is_word = token.token_type not in {*LITERALS, TokenType.IDENTIFIER} and token.text[:1].isalpha()
        if not token or not is_word:
            self.raise_error("expected a type")
        if word not in TYPES:
            self._refuse(f"type {token.text} is not supported; known types: {', '.join(TYPES)}", token)
        self._advance()
        if word in NESTED:
            parameters: list[exp.Expr] = self._parse_type_children(word, token)
        else:
            parameters = self._parse_type_sizes(word, token)
        dtype = self._parse_time_zone(TYPES[word])
        nullable = not self._match_pair(TokenType.NOT, TokenType.NULL)
        if nullable:
            self._match(TokenType.NULL)
        node = exp.DataType(this=dtype, expressions=parameters, nested=word in NESTED, nullable=nullable)
        return self.expression(node, token)

    def _parse_type_sizes(self, word: str, token: Token) -> list[exp.Expr]:
        if not self._match(TokenType.L_PAREN):
            return []
        if word not in SIZED:
            self._refuse(f"type {word} takes no length or precision", token)
        sizes = self._parse_csv(self._parse_number)
        self._match_r_paren()
        most = 2 if TYPES[word] == exp.DType.DECIMAL else 1
        if not 1 <= len(sizes) <= most or not all(size.name.isdigit() for size in sizes):
            self._refuse(f"type {word} takes {'one or two numbers' if most == 2 else 'one number'}", token)
        return [exp.DataTypeParam(this=size) for size in sizes]

    def _parse_type_children(self, word: str, token: Token) -> list[exp.Expr]:
        pairs = {TokenType.LT: TokenType.GT}
        if word == "ROW":
            pairs[TokenType.L_PAREN] = TokenType.R_PAREN
        closing = pairs.get(self._curr.token_type)
        if closing is None:
            self.raise_error(f"expected {word}<...>")
        self._advance()
        children = self._parse_csv(self._parse_row_field if word == "ROW" else self._parse_flink_type)
        if not self._match(closing):
            self.raise_error(f"expected {'>' if closing == TokenType.GT else ')'} after the types of {word}")
        if len(children) != (NESTED[word] or len(children)):
            self._refuse(f"{word} takes {NESTED[word]} type(s) between < and >", token)
        return children

    def _parse_row_field(self) -> exp.Expr:
        name = self._parse_name("a field's name")
        kind = self._parse_flink_type()
        if self._match(TokenType.STRING):
            kind.add_comments([self._prev.text])
        return self.expression(exp.ColumnDef(this=name, kind=kind))

    def _parse_time_zone(self, dtype: exp.DType) -> exp.DType:
        if dtype not in (exp.DType.TIME, exp.DType.TIMESTAMP) or self._match_text_seq("WITHOUT", "TIME", "ZONE"):
            return dtype
        if dtype == exp.DType.TIMESTAMP and self._match_text_seq("WITH", "LOCAL", "TIME", "ZONE"):
            return exp.DType.TIMESTAMPLTZ
        if self._match_text_seq("WITH", "TIME", "ZONE", advance=False):
            self._refuse("WITH TIME ZONE is not supported; use TIMESTAMP(p) WITH LOCAL TIME ZONE", self._curr)
        return dtype

    def _parse_types(self, *args: Any, **kwargs: Any) -> exp.Expr | None:
        """sqlglot's look for a type in an expression: only before a text, as in DATE '2024-01-01'."""
        is_literal = self._curr.token_type in _LITERAL_TYPES and self._next.token_type == TokenType.STRING
        return super()._parse_types(*args, **kwargs) if is_literal else None

    # queries

    def _parse_unary(self) -> exp.Expr | None:
        return self._placed(self._curr, super()._parse_unary())

    def _parse_join(self, *args: Any, **kwargs: Any) -> exp.Join | None:
        return self._placed(self._curr, super()._parse_join(*args, **kwargs))

    def _parse_with(self, *args: Any, **kwargs: Any) -> exp.With | None:
        return self._placed(self._curr, super()._parse_with(*args, **kwargs))

    def parse_set_operation(self, *args: Any, **kwargs: Any) -> exp.SetOperation | None:
        """UNION and its kin, placed at their keyword."""
        return self._placed(self._curr, super().parse_set_operation(*args, **kwargs))

    def _parse_table(self, *args: Any, **kwargs: Any) -> exp.Expr | None:
        if self._match(TokenType.TABLE, advance=False):
            self._refuse("window and table functions (FROM TABLE(...)) are not supported", self._curr)
        return super()._parse_table(*args, **kwargs)

    def _parse_projections(self) -> tuple[list[exp.Expr], list[exp.Expr] | None]:
        expressions, exclude = super()._parse_projections()
        if not expressions:
            self.raise_error("expected an expression after SELECT")
        return expressions, exclude

    def _parse_select_query(self, *args: Any, **kwargs: Any) -> exp.Expr | None:
        start, after = self._curr, self._next
        query = super()._parse_select_query(*args, **kwargs)
        if isinstance(query, exp.Select) and query.args.get("distinct"):
            self._placed(after, query.args["distinct"])
        return self._placed(start, query)

    def _parse_cast(self, strict: bool, safe: bool | None = None) -> exp.Expr:  # noqa: FBT001
        this = self._parse_required("what to cast")
        self._expect("AS")
        return self.expression((exp.TryCast if safe else exp.Cast)(this=this, to=self._parse_flink_type()))

    def _parse_json_scalar(self) -> exp.JSONValue:
        this = self._parse_required("a JSON string")
        self._expect(",")
        path = self._parse_required("a JSON path")
        returning = self._parse_flink_type() if self._match_text_seq("RETURNING") else None
        if not self._match(TokenType.R_PAREN, advance=False):
            self._refuse("JSON_VALUE: only RETURNING is supported (NULL ON EMPTY, NULL ON ERROR)", self._curr)
        return self.expression(exp.JSONValue(this=this, path=path, returning=returning))


class Flink(Dialect):
    """Flink SQL."""

    TYPED_DIVISION = True
    STRICT_STRING_CONCAT = True
    SUPPORTS_USER_DEFINED_TYPES = False
    Tokenizer = FlinkTokenizer
    Parser = FlinkParser
