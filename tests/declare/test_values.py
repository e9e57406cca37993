"""What Flink's expressions mean: every one is run in DuckDB, and its type there is the type the translator promised."""

import datetime as dt
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from tests.declare.evaluate import Columns, kind, run, translate, value


def naive(*parts: int) -> dt.datetime:
    """A time without a zone, as a TIMESTAMP column holds it."""
    return dt.datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001


STAMP = naive(2024, 2, 29, 13, 4, 5, 678999)
ROW: Columns = {
    "i": ("INT", 7),
    "j": ("INT", -2),
    "n": ("INT", None),
    "z": ("INT", 0),
    "t": ("TINYINT", 3),
    "big": ("BIGINT", 2**40),
    "d": ("DOUBLE", 2.675),
    "f": ("FLOAT", 1.5),
    "dec": ("DECIMAL(10,2)", Decimal("12.35")),
    "yes": ("BOOLEAN", True),
    "s": ("STRING", "héllo wörld"),
    "e": ("STRING", ""),
    "ns": ("STRING", None),
    "num": ("STRING", " 12.7 "),
    "json": ("STRING", '{"a":{"b":[1,2]},"c":"x","n":null}'),
    "bad": ("STRING", "{x"),
    "by": ("BYTES", b"abc"),
    "ts3": ("TIMESTAMP(3)", STAMP.replace(microsecond=678000)),
    "ts6": ("TIMESTAMP(6)", STAMP),
    "ltz": ("TIMESTAMP_LTZ(3)", STAMP.replace(microsecond=678000, tzinfo=dt.UTC)),
    "da": ("DATE", dt.date(2024, 2, 29)),
    "ti": ("TIME", dt.time(1, 2, 3)),
    "arr": ("ARRAY<INT>", [1, 2, 3]),
    "m": ("MAP<STRING, INT>", [("a", 1)]),
    "r": ("ROW<x INT, y STRING>", {"x": 1, "y": "q"}),
}
D = Decimal

VALUES: dict[str, tuple[Any, str]] = {
    # numbers: integers stay integers, division cuts, the remainder has the sign of the dividend
    "i + 1": (8, "INT"),
    "i + big": (2**40 + 7, "BIGINT"),
    "t + t": (6, "TINYINT"),
    "i / 2": (3, "INT"),
    "-7 / 2": (-3, "INT"),
    "j % 3": (-2, "INT"),
    "MOD(-7, 4)": (-3, "INT"),
    "-i": (-7, "INT"),
    "i * dec": (D("86.45"), "DECIMAL(20, 2)"),
    "dec + dec": (D("24.70"), "DECIMAL(11, 2)"),
    "dec * dec": (D("152.5225"), "DECIMAL(20, 4)"),
    "dec % 2": (D("0.35"), "DECIMAL(10, 2)"),
    "dec * dec * dec * dec * dec": (D("287299.445624"), "DECIMAL(38, 6)"),
    "i + 1.5": (D("8.5"), "DECIMAL(12, 1)"),
    "f + i": (8.5, "FLOAT"),
    "f * dec": (18.525, "DOUBLE"),
    "i / d": (7 / 2.675, "DOUBLE"),
    "0.001": (D("0.001"), "DECIMAL(3, 3)"),
    ".5": (D("0.5"), "DECIMAL(1, 1)"),
    "1E3": (1000.0, "DOUBLE"),
    "9999999999": (9999999999, "BIGINT"),
    "12345678901234567890": (D("12345678901234567890"), "DECIMAL(20, 0)"),
    "n + 1": (None, "INT"),
    # casts: fractions are cut off, decimals round half up, nothing wraps
    "CAST(d AS INT)": (2, "INT"),
    "CAST(dec AS TINYINT)": (12, "TINYINT"),
    "CAST(num AS INT)": (12, "INT"),
    "CAST(num AS DECIMAL(5, 1))": (D("12.7"), "DECIMAL(5, 1)"),
    "CAST(d AS DECIMAL(5, 2))": (D("2.68"), "DECIMAL(5, 2)"),
    "CAST(0.285 AS DECIMAL(3, 2))": (D("0.29"), "DECIMAL(3, 2)"),
    "CAST(i AS STRING)": ("7", "STRING"),
    "CAST(yes AS STRING)": ("TRUE", "STRING"),
    "CAST(dec AS STRING)": ("12.35", "STRING"),
    "CAST(d AS STRING)": ("2.675", "STRING"),
    "CAST(ts3 AS STRING)": ("2024-02-29 13:04:05.678", "STRING"),
    "CAST(ts6 AS STRING)": ("2024-02-29 13:04:05.678999", "STRING"),
    "CAST(CAST(ts6 AS TIMESTAMP(0)) AS STRING)": ("2024-02-29 13:04:05", "STRING"),
    "CAST(CAST(ts6 AS TIMESTAMP(1)) AS STRING)": ("2024-02-29 13:04:05.6", "STRING"),
    "CAST(ltz AS STRING)": ("2024-02-29 13:04:05.678", "STRING"),
    "CAST(da AS STRING)": ("2024-02-29", "STRING"),
    "CAST(s AS VARCHAR(3))": ("hél", "VARCHAR(3)"),
    "CAST('ab' AS CHAR(4))": ("ab  ", "CHAR(4)"),
    "CAST(s AS BYTES)": ("héllo wörld".encode(), "BYTES"),
    "CAST(by AS STRING)": ("abc", "STRING"),
    "CAST('true' AS BOOLEAN)": (True, "BOOLEAN"),
    "CAST(z AS BOOLEAN)": (False, "BOOLEAN"),
    "CAST(yes AS INT)": (1, "INT"),
    "CAST(NULL AS INT)": (None, "INT"),
    "CAST(ts6 AS TIMESTAMP(3))": (STAMP.replace(microsecond=678000), "TIMESTAMP(3)"),
    "CAST(ts6 AS TIMESTAMP(1))": (STAMP.replace(microsecond=600000), "TIMESTAMP(1)"),
    "CAST('2024-01-01' AS TIMESTAMP(3))": (naive(2024, 1, 1), "TIMESTAMP(3)"),
    "CAST(da AS TIMESTAMP)": (naive(2024, 2, 29), "TIMESTAMP(6)"),
    "CAST(ts3 AS DATE)": (dt.date(2024, 2, 29), "DATE"),
    "CAST(ts3 AS TIME)": (dt.time(13, 4, 5, 678000), "TIME"),
    "CAST(ltz AS TIMESTAMP(3))": (STAMP.replace(microsecond=678000), "TIMESTAMP(3)"),
    "CAST(ts3 AS TIMESTAMP_LTZ(3))": (STAMP.replace(microsecond=678000, tzinfo=dt.UTC), "TIMESTAMP_LTZ(3)"),
    "CAST(ts3 AS TIMESTAMP(3) WITH LOCAL TIME ZONE)": (
        STAMP.replace(microsecond=678000, tzinfo=dt.UTC),
        "TIMESTAMP_LTZ(3)",
    ),
    "CAST('2024-01-01' AS DATE)": (dt.date(2024, 1, 1), "DATE"),
    "DATE '2024-01-01'": (dt.date(2024, 1, 1), "DATE"),
    "TIME '10:00:00'": (dt.time(10), "TIME"),
    "TIMESTAMP '2024-01-01 00:00:00.123'": (naive(2024, 1, 1, 0, 0, 0, 123000), "TIMESTAMP(3)"),
    "CAST(arr AS ARRAY<BIGINT>)": ([1, 2, 3], "ARRAY<BIGINT>"),
    "CAST(arr AS ARRAY<STRING>)": (["1", "2", "3"], "ARRAY<STRING>"),
    "CAST(ARRAY[d] AS ARRAY<DECIMAL(3, 2)>)": ([D("2.68")], "ARRAY<DECIMAL(3, 2)>"),
    "CAST(m AS MAP<STRING, BIGINT>)": ([("a", 1)], "MAP<STRING, BIGINT>"),
    "CAST(r AS ROW<p BIGINT, q STRING>)": ({"p": 1, "q": "q"}, "ROW<p BIGINT, q STRING>"),
    "TRY_CAST('x' AS INT)": (None, "INT"),
    "TRY_CAST(num AS INT)": (12, "INT"),
    "TRY_CAST('1e3' AS INT)": (None, "INT"),
    "TRY_CAST('2024-01-01 00:00:00+02' AS TIMESTAMP)": (None, "TIMESTAMP(6)"),
    # logic
    "i > 5 AND NOT yes": (False, "BOOLEAN"),
    "n > 5 OR yes": (True, "BOOLEAN"),
    "i BETWEEN 1 AND 7": (True, "BOOLEAN"),
    "i NOT BETWEEN 1 AND 7": (False, "BOOLEAN"),
    "i IN (1, 7)": (True, "BOOLEAN"),
    "i NOT IN (1, 7)": (False, "BOOLEAN"),
    "n IS NULL": (True, "BOOLEAN"),
    "n IS NOT NULL": (False, "BOOLEAN"),
    "(n > 1) IS TRUE": (False, "BOOLEAN"),
    "(n > 1) IS NOT TRUE": (True, "BOOLEAN"),
    "(n > 1) IS UNKNOWN": (True, "BOOLEAN"),
    "n IS DISTINCT FROM i": (True, "BOOLEAN"),
    "n IS NOT DISTINCT FROM NULL": (True, "BOOLEAN"),
    "s LIKE 'h%'": (True, "BOOLEAN"),
    "'50%' LIKE '50!%' ESCAPE '!'": (True, "BOOLEAN"),
    "ts3 > '2024-01-01 00:00:00'": (True, "BOOLEAN"),
    "da = '2024-02-29'": (True, "BOOLEAN"),
    "i = 7.0": (True, "BOOLEAN"),
    "i <> 7": (False, "BOOLEAN"),
    "CASE WHEN i > 5 THEN 'big' ELSE 'small' END": ("big", "VARCHAR(5)"),
    "CASE i WHEN 7 THEN 1 WHEN 8 THEN 2.5 END": (D("1.0"), "DECIMAL(11, 1)"),
    "CASE WHEN n > 1 THEN 1 END": (None, "INT"),
    "IF(n > 5, 1, 2)": (2, "INT"),
    "COALESCE(n, i)": (7, "INT"),
    "IFNULL(ns, 'x')": ("x", "STRING"),
    "NULLIF(i, 7)": (None, "INT"),
    "NULLIF(i, 8)": (7, "INT"),
    "GREATEST(i, n)": (None, "INT"),
    "GREATEST(1, i, 3)": (7, "INT"),
    "LEAST('b', 'a')": ("a", "CHAR(1)"),
    # strings
    "s || '!'": ("héllo wörld!", "STRING"),
    "s || ns": (None, "STRING"),
    "'it''s \\t'": ("it's \\t", "CHAR(7)"),
    "UPPER(s)": ("HÉLLO WÖRLD", "STRING"),
    "LOWER('ÀB')": ("àb", "STRING"),
    "CHAR_LENGTH(s)": (11, "INT"),
    "CHARACTER_LENGTH(s)": (11, "INT"),
    "SUBSTRING(s, 2, 3)": ("éll", "STRING"),
    "SUBSTRING(s FROM 2 FOR 3)": ("éll", "STRING"),
    "SUBSTRING(s FROM 7)": ("wörld", "STRING"),
    "SUBSTR(s, 0, 2)": ("hé", "STRING"),
    "SUBSTR(s, -3)": ("rld", "STRING"),
    "SUBSTR(s, -30)": ("", "STRING"),
    "SUBSTR(s, 2, -1)": (None, "STRING"),
    "SUBSTR(s, j, 2)": ("ld", "STRING"),
    "SUBSTR(s, z, i)": ("héllo w", "STRING"),
    "TRIM(' a ')": ("a", "STRING"),
    "TRIM(LEADING 'x' FROM 'xxaxx')": ("axx", "STRING"),
    "TRIM(TRAILING 'x' FROM 'xxaxx')": ("xxa", "STRING"),
    "TRIM(BOTH 'x' FROM 'xxaxx')": ("a", "STRING"),
    "LTRIM(' a ')": ("a ", "STRING"),
    "RTRIM(' a ')": (" a", "STRING"),
    "REPLACE('a.b', '.', '-')": ("a-b", "STRING"),
    "REVERSE('abc')": ("cba", "STRING"),
    "REPEAT('ab', 2)": ("abab", "STRING"),
    "LEFT(s, 2)": ("hé", "STRING"),
    "LEFT(s, j)": ("", "STRING"),
    "RIGHT(s, 2)": ("ld", "STRING"),
    "LPAD('a', 3, 'xy')": ("xya", "STRING"),
    "RPAD('abc', 2, 'x')": ("ab", "STRING"),
    "LPAD('a', -1, 'x')": (None, "STRING"),
    "LPAD('a', 3, '')": (None, "STRING"),
    "CONCAT('a', s)": ("ahéllo wörld", "STRING"),
    "CONCAT('a', ns)": (None, "STRING"),
    "CONCAT_WS(',', 'a', ns, 'b')": ("a,b", "STRING"),
    "POSITION('l' IN s)": (3, "INT"),
    "INSTR(s, 'zz')": (0, "INT"),
    "LOCATE('l', s)": (3, "INT"),
    "SPLIT_INDEX('a,b,,c', ',', 1)": ("b", "STRING"),
    "SPLIT_INDEX('a,b,,c', ',', 2)": ("", "STRING"),
    "SPLIT_INDEX('a,b', ',', 9)": (None, "STRING"),
    "SPLIT_INDEX('a,b', ',', j)": (None, "STRING"),
    "SPLIT_INDEX(e, ',', 0)": (None, "STRING"),
    "REGEXP(s, 'w.r')": (True, "BOOLEAN"),
    "REGEXP(s, '')": (False, "BOOLEAN"),
    "REGEXP_EXTRACT('foothebar', 'foo(.*?)(bar)', 2)": ("bar", "STRING"),
    "REGEXP_EXTRACT('foothebar', 'the')": ("the", "STRING"),
    "REGEXP_EXTRACT('x', 'y')": (None, "STRING"),
    "REGEXP_REPLACE('a1b2', '[0-9]', '\\1$')": ("a\\1$b\\1$", "STRING"),
    "STARTSWITH(s, 'h')": (True, "BOOLEAN"),
    "ENDSWITH(s, 'h')": (False, "BOOLEAN"),
    "MD5('a')": ("0cc175b9c0f1b6a831c399e269772661", "STRING"),
    "SHA1('a')": ("86f7e437faa5a7fce15d1ddcb9eaeaea377667b8", "STRING"),
    "TO_BASE64('é')": ("w6k=", "STRING"),
    "FROM_BASE64('w6k=')": ("é", "STRING"),
    "x'4142'": (b"AB", "BYTES"),
    # functions of numbers
    "ABS(j)": (2, "INT"),
    "SIGN(dec)": (D("1.00"), "DECIMAL(10, 2)"),
    "CEIL(dec)": (D("13"), "DECIMAL(10, 0)"),
    "CEILING(d)": (3.0, "DOUBLE"),
    "FLOOR(d)": (2.0, "DOUBLE"),
    "FLOOR(i)": (7, "INT"),
    "ROUND(d, 2)": (2.68, "DOUBLE"),
    "ROUND(1.005E0, 2)": (1.01, "DOUBLE"),
    "ROUND(-2.5E0)": (-3.0, "DOUBLE"),
    "ROUND(dec, 1)": (D("12.4"), "DECIMAL(10, 1)"),
    "ROUND(dec)": (D("12"), "DECIMAL(9, 0)"),
    "ROUND(i, 2)": (7, "INT"),
    "TRUNCATE(dec, 1)": (D("12.3"), "DECIMAL(10, 1)"),
    "SQRT(4)": (2.0, "DOUBLE"),
    "POWER(2, 10)": (1024.0, "DOUBLE"),
    "LOG(2, 8)": (3.0, "DOUBLE"),
    "LOG(1)": (0.0, "DOUBLE"),
    "LN(1)": (0.0, "DOUBLE"),
    "LOG10(100)": (2.0, "DOUBLE"),
    "LOG2(8)": (3.0, "DOUBLE"),
    "EXP(0)": (1.0, "DOUBLE"),
    "ATAN2(0, 1)": (0.0, "DOUBLE"),
    # collections: counted from 1, NULL outside
    "arr[1]": (1, "INT"),
    "arr[9]": (None, "INT"),
    "arr[t]": (3, "INT"),
    "m['a']": (1, "INT"),
    "m['z']": (None, "INT"),
    "r.x": (1, "INT"),
    "src.r.y": ("q", "STRING"),
    "CARDINALITY(arr)": (3, "INT"),
    "CARDINALITY(m)": (1, "INT"),
    "ARRAY_CONTAINS(arr, 2)": (True, "BOOLEAN"),
    "MAP_KEYS(m)": (["a"], "ARRAY<STRING>"),
    "MAP_VALUES(m)": ([1], "ARRAY<INT>"),
    "ARRAY[1, 2.5]": ([D("1.0"), D("2.5")], "ARRAY<DECIMAL(11, 1)>"),
    "ARRAY[CAST(0.5 AS FLOAT), CAST(0.25 AS FLOAT)]": ([0.5, 0.25], "ARRAY<FLOAT>"),
    "MAP['a', 1, 'b', 2]": ([("a", 1), ("b", 2)], "MAP<CHAR(1), INT>"),
    "MAP['a', 1]['a']": (1, "INT"),
    # JSON: NULL on empty, NULL on error
    "JSON_VALUE(json, '$.c')": ("x", "STRING"),
    "JSON_VALUE(json, '$.a')": (None, "STRING"),
    "JSON_VALUE(json, '$.n')": (None, "STRING"),
    "JSON_VALUE(json, 'lax $.a.b[1]')": ("2", "STRING"),
    "JSON_VALUE(json, '$.a.b[1]' RETURNING INT)": (2, "INT"),
    "JSON_VALUE(json, '$.c' RETURNING INT)": (None, "INT"),
    "JSON_VALUE(json, '$[''c'']')": ("x", "STRING"),
    "JSON_VALUE(bad, '$.c')": (None, "STRING"),
    "JSON_QUERY(json, '$.a')": ('{"b":[1,2]}', "STRING"),
    "JSON_QUERY(json, '$.c')": (None, "STRING"),
    "JSON_EXISTS(json, '$.a')": (True, "BOOLEAN"),
    "JSON_EXISTS(json, '$.zz')": (False, "BOOLEAN"),
    "JSON_EXISTS(bad, '$.zz')": (False, "BOOLEAN"),
    # times
    "ts3 + INTERVAL '1' DAY": (naive(2024, 3, 1, 13, 4, 5, 678000), "TIMESTAMP(3)"),
    "ts3 - INTERVAL '5' SECOND": (naive(2024, 2, 29, 13, 4, 0, 678000), "TIMESTAMP(3)"),
    "ts6 + INTERVAL '1.5' SECOND": (STAMP + dt.timedelta(seconds=1.5), "TIMESTAMP(6)"),
    "da + INTERVAL '1' MONTH": (dt.date(2024, 3, 29), "DATE"),
    "INTERVAL '1' DAY + da": (dt.date(2024, 3, 1), "DATE"),
    "ltz + INTERVAL '1' HOUR": (dt.datetime(2024, 2, 29, 14, 4, 5, 678000, tzinfo=dt.UTC), "TIMESTAMP_LTZ(3)"),
    "DATE_FORMAT(ts3, 'yyMMdd')": ("240229", "STRING"),
    "DATE_FORMAT(ts3, 'yyyy-MM-dd''T''HH:mm:ss.SSS %')": ("2024-02-29T13:04:05.678 %", "STRING"),
    "DATE_FORMAT(ts6, 'h:mm a, EEEE d MMMM')": ("1:04 PM, Thursday 29 February", "STRING"),
    "DATE_FORMAT('2024-01-01 00:00:00', 'dd.M.')": ("01.1.", "STRING"),
    "DATE_FORMAT(ltz, 'HH')": ("13", "STRING"),
    "TO_TIMESTAMP('2024-01-01 10:00:00')": (naive(2024, 1, 1, 10), "TIMESTAMP(3)"),
    "TO_TIMESTAMP('2024-01-01 10:00:00.123456')": (naive(2024, 1, 1, 10, 0, 0, 123000), "TIMESTAMP(3)"),
    "TO_TIMESTAMP('2024-1-1')": (naive(2024, 1, 1), "TIMESTAMP(3)"),
    "TO_TIMESTAMP('01/02/2024 10', 'dd/MM/yyyy HH')": (naive(2024, 2, 1, 10), "TIMESTAMP(3)"),
    "TO_TIMESTAMP('nonsense')": (None, "TIMESTAMP(3)"),
    "TO_DATE('2024-01-01')": (dt.date(2024, 1, 1), "DATE"),
    "TO_DATE('20240102', 'yyyyMMdd')": (dt.date(2024, 1, 2), "DATE"),
    "TO_TIMESTAMP_LTZ(1700000000, 0)": (dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC), "TIMESTAMP_LTZ(3)"),
    "TO_TIMESTAMP_LTZ(1700000000123, 3)": (
        dt.datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=dt.UTC),
        "TIMESTAMP_LTZ(3)",
    ),
    "UNIX_TIMESTAMP('1970-01-02 00:00:00')": (86400, "BIGINT"),
    "FROM_UNIXTIME(0)": ("1970-01-01 00:00:00", "STRING"),
    "FROM_UNIXTIME(86400, 'yyyyMMdd')": ("19700102", "STRING"),
    "TIMESTAMPADD(DAY, 1, ts3)": (naive(2024, 3, 1, 13, 4, 5, 678000), "TIMESTAMP(3)"),
    "TIMESTAMPADD(MONTH, j, da)": (dt.date(2023, 12, 29), "DATE"),
    "TIMESTAMPDIFF(DAY, da, ts3)": (0, "INT"),
    "TIMESTAMPDIFF(SECOND, TIMESTAMP '2024-01-01 00:00:10', DATE '2024-01-01')": (-10, "INT"),
    "EXTRACT(YEAR FROM ts3)": (2024, "BIGINT"),
    "EXTRACT(DOW FROM da)": (5, "BIGINT"),
    "DAYOFWEEK(da)": (5, "BIGINT"),
    "DAYOFYEAR(da)": (60, "BIGINT"),
    "QUARTER(da)": (1, "BIGINT"),
    "WEEK(da)": (9, "BIGINT"),
    "HOUR(ti)": (1, "BIGINT"),
    "SECOND(ts3)": (5, "BIGINT"),
    "FLOOR(ts3 TO HOUR)": (naive(2024, 2, 29, 13), "TIMESTAMP(3)"),
    "CEIL(ts3 TO DAY)": (naive(2024, 3, 1), "TIMESTAMP(3)"),
    "CEIL(da TO DAY)": (dt.date(2024, 2, 29), "DATE"),
    "FLOOR(da TO MONTH)": (dt.date(2024, 2, 1), "DATE"),
    # names
    "`i`": (7, "INT"),
    "src.`i`": (7, "INT"),
}


@pytest.mark.parametrize("expression", VALUES)
def test_expression_has_flink_s_value_and_type(expression: str) -> None:
    assert run(expression, ROW) == VALUES[expression]


@pytest.mark.parametrize(
    "expression",
    [
        "i / z",
        "i % z",
        "dec % z",
        "CAST(s AS INT)",
        "CAST('1e3' AS INT)",
        "CAST('0x1F' AS INT)",
        "CAST('2024-01-01 00:00:00+02' AS TIMESTAMP)",
        "CAST('2024/01/01' AS DATE)",
        "CAST(big AS INT)",
        "CAST('300' AS TINYINT)",
        "CAST('12345' AS DECIMAL(3, 0))",
        "CAST(dec AS DECIMAL(3, 2))",
        "big * big",
        "i + 2147483647",
        "arr[j]",
        "FROM_BASE64(s)",
        "UNIX_TIMESTAMP(s)",
    ],
)
def test_what_has_no_value_fails_at_run_time_and_never_wraps(expression: str) -> None:
    with pytest.raises((duckdb.DataError, duckdb.InvalidInputException)):
        value(expression, **ROW)


def test_failing_expression_can_be_tried_so_that_all_failing_records_are_found_in_one_query() -> None:
    for expression in ("CAST(s AS INT)", "arr[j]", "CAST(s AS DATE)", "i / z"):
        _, typed = translate(expression, ROW)
        source = "(SELECT 'x' AS s, 7 AS i, 0 AS z, -2 AS j, [1] AS arr) AS source"
        with duckdb.connect() as connection:
            assert connection.execute(f"SELECT TRY({typed.sql}) FROM {source}").fetchall() == [(None,)]


def test_nanoseconds_are_kept_and_cut() -> None:
    stamp = "CAST('2024-01-01 00:00:00.123456789' AS TIMESTAMP(9))"
    assert value(stamp) == "2024-01-01 00:00:00.123456789"
    assert value(f"CAST({stamp} AS TIMESTAMP(6))") == naive(2024, 1, 1, 0, 0, 0, 123456)
    assert value(f"CAST({stamp} AS STRING)") == "2024-01-01 00:00:00.123456789"


def test_times_before_1970_are_cut_towards_the_past() -> None:
    before = ("TIMESTAMP(6)", naive(1969, 12, 31, 23, 59, 59, 999999))
    for digits, micros in ((3, 999000), (1, 900000), (0, 0)):
        assert value(f"CAST(x AS TIMESTAMP({digits}))", x=before) == before[1].replace(microsecond=micros)


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("CASE WHEN yes THEN t ELSE big END", "BIGINT"),
        ("CASE WHEN yes THEN i ELSE f END", "FLOAT"),
        ("CASE WHEN yes THEN dec ELSE f END", "DOUBLE"),
        ("CASE WHEN yes THEN dec ELSE big END", "DECIMAL(21, 2)"),
        ("CASE WHEN yes THEN s ELSE 'a' END", "STRING"),
        ("CASE WHEN yes THEN da ELSE ts3 END", "TIMESTAMP(3)"),
        ("CASE WHEN yes THEN ts6 ELSE ltz END", "TIMESTAMP_LTZ(6)"),
        ("CASE WHEN yes THEN arr ELSE ARRAY[big] END", "ARRAY<BIGINT>"),
        ("CASE WHEN yes THEN NULL ELSE i END", "INT"),
    ],
)
def test_branches_share_the_type_flink_gives_them(expression: str, wanted: str) -> None:
    assert kind(expression, **ROW) == wanted
