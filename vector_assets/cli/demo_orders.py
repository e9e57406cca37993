"""The demo's third part: nested JSON that changes half-way becomes two tables of a lake, which one query joins."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vector_assets.cli import schema_versions
from vector_assets.cli.declared import opened, with_secrets
from vector_assets.cli.demo_part import (
    Part,
    Progress,
    letters_of,
    read_and_unread,
    show_letters,
    show_newest_batches,
)
from vector_assets.cli.output import heading, say, show_table
from vector_assets.engine import env
from vector_assets.engine.abilities import Queryable
from vector_assets.engine.errors import FatalError
from vector_assets.local import demo_orders as world

if TYPE_CHECKING:
    import pyarrow as pa

    from vector_assets.engine.session import Session

DATABASE = "_archive.sql"
"""The Paimon database, in the folder of the pipelines."""
QUERY = """SELECT o.customer_city AS city, count(*) AS orders, sum(o.total) AS total,
  count(o.coupon) AS coupons, count(a._rescued->>'coupon') AS put_aside
FROM shop.orders AS o JOIN archive.orders AS a USING (id)
GROUP BY city ORDER BY city"""


def _create_database(progress: Progress) -> str:
    """Do what `vector-assets target create` does, after making the directory, which that never makes."""
    from vector_assets.sinks import paimon_database

    file: Path = env.pipelines_dir() / DATABASE
    database = paimon_database.read_database(file.read_text(), file.name)
    progress(f"looking at {database.location}")
    paimon_database.storage_of(database, with_secrets).make()
    paimon_database.check(database, with_secrets)
    is_new = paimon_database.note(database)
    return f"Paimon database {database.name}: {'noted' if is_new else 'already there'}; tables are made by their jobs"


def _fill_topic(progress: Progress) -> str:
    return world.fill_topic(progress).told(world.TOPIC)


@dataclass(frozen=True, slots=True)
class Account:
    """What one job read, and what its table holds; `is_equal`: every message that is an order is what its row says."""

    job: str
    read: int
    unread: int
    letters: int
    rows: int
    rescued: int
    is_equal: bool

    @property
    def adds_up(self) -> bool:
        """True when everything was read, the bad messages alone are dead letters, and the rows say what was sent.

        A topic that was read again after a reset counts each time.
        """
        times, rest = divmod(self.read, world.RECORDS)
        good = self.rows == times * (world.RECORDS - world.POISON) and self.letters == times * world.POISON
        return self.unread == 0 and rest == 0 and good and self.is_equal


def _show() -> list[tuple[str, str]]:
    accounts = []
    for job in world.PIPELINES:
        with opened(job) as session:
            accounts.append(_account(session))
    _show_accounts(accounts)
    with opened(world.PIPELINES[0]) as session:
        show_letters(letters_of(session))
        heading("Columns of the Iceberg table, which followed the messages")
        schema_versions.show(session.ledger, session.pipeline.name, session.pipeline.target)
        show_newest_batches(session)
    answer = _show_query()
    if not all(account.adds_up for account in accounts):
        raise FatalError(f"demo: the tables do not say what was sent: {accounts}")
    if all(account.read == world.RECORDS for account in accounts) and answer != expected_answer():
        raise FatalError(f"demo: the query wants {expected_answer()}, found {answer}")
    return [
        (f"query 'SELECT * FROM shop.orders WHERE id > {world.DRIFT} LIMIT 5'", "rows of a lake table"),
        (f"jobs preview {world.PIPELINES[0]}", "the newest messages and the rows they are"),
    ]


def _account(session: "Session") -> Account:
    read, unread = read_and_unread(session)
    table = cast(Queryable, session.sink).relation().read_all()
    documents = _rebuilt(table, session)
    return Account(
        session.pipeline.name, read, unread, len(letters_of(session)), table.num_rows,
        table.num_rows - table.column("_rescued").null_count, documents == world.orders().documents,
    )  # fmt: skip


def _rebuilt(table: "pa.Table", session: "Session") -> dict[int, dict[str, Any]]:
    """The messages that the rows were made of, by id."""
    from vector_assets.engine.schema_history import latest_state
    from vector_assets.formats.lake_fields import RESCUED, rebuild
    from vector_assets.formats.lake_json import LakeJsonDecoder

    state = latest_state(session.ledger, session.pipeline.name, session.pipeline.target)
    fields = cast(LakeJsonDecoder, session.pipeline.decoder).evolved(state).fields
    return {row["id"]: rebuild(row, row[RESCUED], fields) for row in table.to_pylist()}


def _show_accounts(accounts: "list[Account]") -> None:
    heading("Orders: what became of the messages")
    rows = [
        (each.job, f"{each.read:,}", f"{each.letters:,}", f"{each.rows:,}", f"{each.rescued:,}",
         "yes" if each.is_equal else "NO")
        for each in accounts
    ]  # fmt: skip
    columns = ("job", "read", "dead letters", "rows", "with _rescued", "each message rebuilt from its row")
    show_table(columns, rows, right=columns[1:5])


def _show_query() -> list[dict[str, Any]]:
    from vector_assets.cli.query import answer, show

    heading("Both tables in one query")
    say(f'vector-assets query "{QUERY}"', "dim")
    found = answer(QUERY)
    show(found)
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def expected_answer() -> list[dict[str, Any]]:
    """What the query has to say, by the messages themselves."""
    by_city: dict[str, list[Mapping[str, Any]]] = {}
    for each in world.orders().documents.values():
        by_city.setdefault(cast(dict[str, str], each["customer"])["city"], []).append(each)
    return [
        {
            "city": city,
            "orders": len(found),
            "total": sum((each["total"] for each in found), Decimal()),
            "coupons": (coupons := sum("coupon" in each for each in found)),
            "put_aside": coupons,
        }
        for city, found in sorted(by_city.items())
    ]


PART = Part(
    world.PIPELINES, world.SERVICES, (("database", _create_database), ("topic", _fill_topic)), _show
)  # fmt: skip
