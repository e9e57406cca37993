"""Flink SQL's words: its keywords, type names and tokens, and the syntax nodes that sqlglot lacks.

Only spellings that Flink knows are keywords; everything else is a name, or an error.
"""

from typing import ClassVar

from sqlglot import exp, tokens
from sqlglot.errors import ParseError
from sqlglot.tokenizer_core import TokenType

STATEMENTS = "CREATE TABLE, INSERT INTO ... SELECT, SET, STATEMENT SET"
"""The statements that are supported, for messages."""

TYPES = {
    "BOOLEAN": exp.DType.BOOLEAN,
    "TINYINT": exp.DType.TINYINT,
    "SMALLINT": exp.DType.SMALLINT,
    "INT": exp.DType.INT,
    "INTEGER": exp.DType.INT,
    "BIGINT": exp.DType.BIGINT,
    "FLOAT": exp.DType.FLOAT,
    "DOUBLE": exp.DType.DOUBLE,
    "DOUBLE PRECISION": exp.DType.DOUBLE,
    "DECIMAL": exp.DType.DECIMAL,
    "DEC": exp.DType.DECIMAL,
    "NUMERIC": exp.DType.DECIMAL,
    "CHAR": exp.DType.CHAR,
    "VARCHAR": exp.DType.VARCHAR,
    "STRING": exp.DType.TEXT,
    "BINARY": exp.DType.BINARY,
    "VARBINARY": exp.DType.VARBINARY,
    "BYTES": exp.DType.VARBINARY,
    "DATE": exp.DType.DATE,
    "TIME": exp.DType.TIME,
    "TIMESTAMP": exp.DType.TIMESTAMP,
    "TIMESTAMP_LTZ": exp.DType.TIMESTAMPLTZ,
    "ARRAY": exp.DType.ARRAY,
    "MAP": exp.DType.MAP,
    "ROW": exp.DType.STRUCT,
}
"""Flink's spellings of the types we know."""

SIZED = {"DECIMAL", "DEC", "NUMERIC", "CHAR", "VARCHAR", "BINARY", "VARBINARY", "TIME", "TIMESTAMP", "TIMESTAMP_LTZ"}
NESTED = {"ARRAY": 1, "MAP": 2, "ROW": 0}
_WORDS = """
|| >= <= <> != ALL AND ANY AS ASC BEGIN BETWEEN CALL CASE COLLATE COLUMN COMMENT CONSTRAINT CREATE CROSS CUBE
CURRENT_CATALOG CURRENT_DATE CURRENT_SCHEMA CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER DATABASE DEFAULT DELETE DESC
DESCRIBE DISTINCT DROP ELSE END ESCAPE EXCEPT EXECUTE EXISTS EXPLAIN FALSE FETCH FILTER FIRST FOR FROM FULL FUNCTION
GRANT HAVING IN INDEX INNER INSERT INTERSECT INTERVAL INTO IS JOIN LATERAL LEFT LIKE LIMIT LOAD LOCALTIME LOCALTIMESTAMP
MERGE NATURAL NEXT NOT NULL OFFSET ON OR ORDINALITY OUTER OVER OVERLAPS OVERWRITE PARTITION PROCEDURE RECURSIVE
REFERENCES RENAME REPLACE RIGHT ROLLUP ROWS SCHEMA SELECT SESSION_USER SET SHOW SOME TABLE TABLESAMPLE TEMPORARY THEN
TRUE TRUNCATE UNION UNIQUE UNKNOWN UNNEST UPDATE USE USING VALUES VIEW WHEN WHERE WINDOW WITH
"""
_PHRASES = ("GROUP BY", "GROUPING SETS", "ORDER BY", "PARTITION BY", "PARTITIONED BY", "PRIMARY KEY", "SIMILAR TO")
LITERALS = {TokenType.STRING, TokenType.NUMBER, TokenType.HEX_STRING, TokenType.NATIONAL_STRING}


class FlinkSyntaxError(ParseError):
    """What cannot be parsed, with the offset of the token to blame."""

    def __init__(self, message: str, start: int) -> None:
        super().__init__(message)
        self.message = message
        self.start = start


class Watermark(exp.Expression):
    """`WATERMARK FOR this AS expression`."""

    arg_types: ClassVar = {"this": True, "expression": True}


class MetadataColumnConstraint(exp.Expression, exp.ColumnConstraintKind):
    """`METADATA [FROM this] [VIRTUAL]`."""

    arg_types: ClassVar = {"this": False, "virtual": False}


class FlinkTokenizer(tokens.Tokenizer):
    """Backticks quote names; a backslash is an ordinary character; comments do not nest; hints are comments here."""

    IDENTIFIERS: ClassVar = ["`"]
    HEX_STRINGS: ClassVar = [("x'", "'"), ("X'", "'")]
    NESTED_COMMENTS = False
    COMMANDS: ClassVar = set()
    KEYWORDS: ClassVar = {
        **{word: tokens.Tokenizer.KEYWORDS[word] for word in (*_WORDS.split(), *_PHRASES, *TYPES) if word != "BYTES"},
        "BYTES": TokenType.VARBINARY,
    }


# sqlglot reads Jinja comments in every dialect; in a script they would hide statements
del FlinkTokenizer._COMMENTS["{#"]
