"""The demo's bookshop: three related tables of MySQL, what happens to them, and the Delta tables that follow."""

import random
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache

from pymysql.cursors import Cursor

from vector_assets.engine import env
from vector_assets.local import demo_mysql
from vector_assets.local.demo_mysql import Row
from vector_assets.local.maxcompute.service import MaxComputeService
from vector_assets.local.mysql import MySqlService
from vector_assets.local.service import Progress

SERVICES = (MySqlService.name, MaxComputeService.name)
FILE = "bookshop.yaml"
DATABASE = "bookshop"
TABLES = ("authors", "books", "sales")
PIPELINES = tuple(f"cdc_{DATABASE}_{table}" for table in TABLES)
NEW_COLUMN = "language"
AUTHORS, BOOKS, SALES = 30, 300, 2_000
"""Rows before anything changes."""

_SEED = 20260305
_NEW_SALES = 100
_NEW_BOOKS = 10
_FIRST = ("Ada", "Chen", "Ivo", "Lena", "Marie", "Noor", "Otto", "Yuki")
_LAST = ("Adeyemi", "Berg", "Costa", "Fischer", "Li", "Novak", "Okafor", "Silva")
_WORDS = ("Bridge", "Garden", "Harbour", "Letter", "Mountain", "River", "Station", "Winter")
_OPENING = datetime(2026, 1, 2, 9)  # noqa: DTZ001 -- DATETIME has no time zone

_DDL = (
    "authors (id INT PRIMARY KEY, name VARCHAR(60) NOT NULL, born DATE)",
    "books (id INT PRIMARY KEY, author_id INT NOT NULL, title VARCHAR(80) NOT NULL, price DECIMAL(8, 2) NOT NULL,"
    " FOREIGN KEY (author_id) REFERENCES authors (id))",
    "sales (id BIGINT PRIMARY KEY, book_id INT NOT NULL, sold_at DATETIME NOT NULL,"
    " quantity SMALLINT UNSIGNED NOT NULL, note VARCHAR(40), FOREIGN KEY (book_id) REFERENCES books (id))",
)
_BEFORE = (
    f"DELETE FROM sales WHERE id % 40 = 0 AND id <= {SALES}",
    "UPDATE sales SET note = 'a present', quantity = quantity + 1 WHERE id % 25 = 1",
    # a key changes
    f"UPDATE sales SET id = id + 1000000 WHERE id % 500 = 2 AND id <= {SALES}",
    "UPDATE books SET price = price * 1.10 WHERE id % 10 = 0",
    "UPDATE authors SET born = NULL WHERE id = 3",
)
_COLUMN = f"ALTER TABLE books ADD COLUMN {NEW_COLUMN} VARCHAR(2) AFTER title"
_AFTER = (
    f"UPDATE books SET {NEW_COLUMN} = ELT(1 + id % 3, 'de', 'en', 'zh') WHERE id % 2 = 0",
    "DELETE FROM sales WHERE book_id = 7",
    "DELETE FROM books WHERE id = 7",
)


@cache
def world() -> Mapping[str, list[Row]]:
    """Rows of the tables before anything changes, then those that come later; the same at every call."""
    # a fixed seed: nothing here is secret
    source = random.Random(_SEED)
    authors = [
        (
            number,
            f"{source.choice(_FIRST)} {source.choice(_LAST)}",
            date(1900 + source.randrange(100), 5, number % 28 + 1),
        )
        for number in range(1, AUTHORS + 1)
    ]
    books = [
        (number, source.randrange(1, AUTHORS + 1), f"The {source.choice(_WORDS)} and the {source.choice(_WORDS)}",
         Decimal(source.randrange(500, 6000)).scaleb(-2))
        for number in range(1, BOOKS + _NEW_BOOKS + 1)
    ]  # fmt: skip
    sales = [
        (number, source.randrange(1, BOOKS + 1), _OPENING + timedelta(minutes=7 * number), source.randrange(1, 4), None)
        for number in range(1, SALES + _NEW_SALES + 1)
    ]
    return {"authors": authors, "books": books, "sales": sales}


def fill(progress: Progress) -> int:
    """Make the database and its rows where they lack; how many rows were written."""
    progress(f"filling {DATABASE}")
    demo_mysql.create(DATABASE, _DDL)
    with demo_mysql.transaction(DATABASE) as cursor:
        if demo_mysql.has(cursor, "SELECT 1 FROM authors LIMIT 1"):
            return 0
        first = dict(zip(TABLES, (AUTHORS, BOOKS, SALES), strict=True))
        for table, count in first.items():
            _insert(cursor, table, world()[table][:count])
    return sum(first.values())


def change(progress: Progress) -> int:
    """Insert, update and delete, add a column, and go on with it, where that has not happened; how many rows changed.

    Each of the two halves is one transaction, told by a row that it inserts.
    """
    progress(f"changing {DATABASE}")
    changed = 0
    with demo_mysql.transaction(DATABASE) as cursor:
        if not demo_mysql.has(cursor, f"SELECT 1 FROM sales WHERE id = {SALES + 1}"):
            changed += sum(cursor.execute(statement) for statement in _BEFORE)
            changed += _insert(cursor, "sales", world()["sales"][SALES:])
    with demo_mysql.transaction(DATABASE) as cursor:
        if not demo_mysql.has(cursor, f"SHOW COLUMNS FROM books LIKE '{NEW_COLUMN}'"):
            progress(_COLUMN)
            cursor.execute(_COLUMN)
    with demo_mysql.transaction(DATABASE) as cursor:
        if not demo_mysql.has(cursor, f"SELECT 1 FROM books WHERE id = {BOOKS + 1}"):
            changed += sum(cursor.execute(statement) for statement in _AFTER)
            changed += _insert(cursor, f"books (id, author_id, title, price, {NEW_COLUMN})", [
                (*row, "en") for row in world()["books"][BOOKS:]
            ])  # fmt: skip
    return changed


def _insert(cursor: Cursor, table: str, rows: list[Row]) -> int:
    values = ", ".join(["%s"] * len(rows[0]))
    return int(cursor.executemany(f"INSERT INTO {table} VALUES ({values})", rows) or 0)


def columns() -> dict[str, list[str]]:
    """Columns of each table of MySQL, as they are now."""
    return {table: [row[0] for row in demo_mysql.rows(DATABASE, f"SHOW COLUMNS FROM {table}")] for table in TABLES}


def source_rows(table: str, names: list[str]) -> list[Row]:
    """Rows of a table of MySQL, by id."""
    return demo_mysql.rows(DATABASE, f"SELECT {', '.join(names)} FROM {table} ORDER BY id")


def landed_rows(table: str, names: list[str]) -> list[Row]:
    """Rows of a Delta table, by id, read by plain pyodps."""
    from odps import ODPS

    odps = ODPS(
        env.secret("maxcompute_access_id"), env.secret("maxcompute_access_key"), env.secret("maxcompute_project"),
        endpoint=env.secret("maxcompute_endpoint"),
    )  # fmt: skip
    query = f"SELECT {', '.join(names)} FROM {table}"
    with odps.execute_sql(query).open_reader(tunnel=True, limit=False) as reader:
        return sorted(tuple(record.values) for record in reader)


def languages() -> list[Row]:
    """Books by the new column, as the Delta table has them: language, books and their dearest price."""
    found: dict[str, list[Decimal]] = {}
    for language, price in landed_rows("books", [f"coalesce({NEW_COLUMN}, '')", "price"]):
        found.setdefault(language or "(none)", []).append(price)
    return [(language, len(prices), max(prices)) for language, prices in sorted(found.items())]
