"""The demo's articles: a table of MySQL that becomes an index with vectors, and what happens to it."""

from collections.abc import Mapping
from typing import Any

import orjson
import urllib3

from vector_assets.engine import env
from vector_assets.engine.errors import TransientError
from vector_assets.local import demo_mysql
from vector_assets.local.demo_mysql import Row
from vector_assets.local.embeddings import EmbeddingsService
from vector_assets.local.mysql import MySqlService
from vector_assets.local.opensearch import OpenSearchService
from vector_assets.local.service import Progress

SERVICES = (MySqlService.name, EmbeddingsService.name, OpenSearchService.name)
FOLDER = "_search"
"""Below the folder of pipelines; passed over there."""
SET_UP = "_setup.yaml"
PIPELINE = "articles"
DATABASE = "wiki"
TABLE = "articles"
VECTOR = "body_vector"
MODEL = "text-embedding-v4"
QUESTIONS = ("an animal that sleeps all day", "how to make dinner without meat")

_TIMEOUT_S = 60.0
_DDL = ("articles (id INT PRIMARY KEY, title VARCHAR(60) NOT NULL, body TEXT NOT NULL)",)

ARTICLES: tuple[tuple[int, str, str], ...] = (
    (1, "Cats", "A cat spends most of the day asleep on the sofa and hunts mice at night."),
    (2, "Interest", "The central bank raised interest rates because prices rose faster than wages."),
    (3, "Soup", "Boil lentils with carrots and onions for half an hour and season with lemon."),
    (4, "Trains", "The night train leaves the station at ten and arrives in the capital before dawn."),
    (5, "Tides", "The moon pulls at the oceans and the water rises and falls twice a day."),
    (6, "Football", "The home team scored twice in the last five minutes and won the cup."),
    (7, "Databases", "An index lets the server find a row without reading the whole table."),
    (8, "Violins", "The strings of a violin are tuned in fifths and played with a bow."),
    (9, "Bees", "Bees visit flowers for nectar and carry pollen from one to the next."),
    (10, "Bridges", "Steel cables carry the weight of the road between two tall towers."),
    (11, "Bread", "Knead flour, water and salt, let the dough rise overnight and bake it hot."),
    (12, "Volcanoes", "Molten rock breaks through the crust and flows down the mountain as lava."),
    (13, "Elections", "Voters choose a new parliament every four years by secret ballot."),
    (14, "Glaciers", "Ice that is a thousand years old moves slowly down the valley and melts."),
    (15, "Dogs", "The shepherd's dog runs around the flock and barks at strangers."),
    (16, "Loans", "Whoever borrows money from a bank pays it back with interest over years."),
)
"""Rows before anything changes."""

_CHANGES = (
    (f"INSERT INTO {TABLE} VALUES (%s, %s, %s)",
     (17, "Sloths", "Sloths hang in trees, move very little and doze for fifteen hours.")),
    (f"UPDATE {TABLE} SET title = %s, body = %s WHERE id = 6",
     ("Chess", "The world champion gave up a rook and won the game ten moves later.")),
    (f"UPDATE {TABLE} SET id = 18 WHERE id = %s", (8,)),
    (f"DELETE FROM {TABLE} WHERE id = %s", (12,)),
)  # fmt: skip


def fill(progress: Progress) -> int:
    """Make the table and its rows where they lack; how many rows were written."""
    progress(f"filling {DATABASE}.{TABLE}")
    demo_mysql.create(DATABASE, _DDL)
    with demo_mysql.transaction(DATABASE) as cursor:
        if demo_mysql.has(cursor, f"SELECT 1 FROM {TABLE} LIMIT 1"):
            return 0
        return int(cursor.executemany(f"INSERT INTO {TABLE} VALUES (%s, %s, %s)", ARTICLES) or 0)


def change(progress: Progress) -> int:
    """One article comes, one is rewritten, one gets another id, one goes, unless that has happened; how many."""
    progress(f"changing {DATABASE}.{TABLE}")
    with demo_mysql.transaction(DATABASE) as cursor:
        if demo_mysql.has(cursor, f"SELECT 1 FROM {TABLE} WHERE id = 17"):
            return 0
        return sum(cursor.execute(statement, values) for statement, values in _CHANGES)


def articles() -> list[Row]:
    """The rows of MySQL by id: `id, title, body`."""
    return demo_mysql.rows(DATABASE, f"SELECT id, title, body FROM {TABLE} ORDER BY id")


def documents() -> Mapping[str, dict[str, Any]]:
    """The documents of the index by `_id`, read as any client of OpenSearch would.

    Raises:
        TransientError: OpenSearch does not answer.
    """
    answer = _ask(f"{env.secret('opensearch_url')}/{PIPELINE}/_search", {"size": 1000}, {})
    return {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}


def embedded(texts: list[str]) -> list[list[float]]:
    """The vectors of texts, asked of the embedding service directly.

    Raises:
        TransientError: it does not answer.
    """
    key = {"Authorization": f"Bearer {env.secret('embeddings_api_key')}"}
    answer = _ask(f"{env.secret('embeddings_url')}/embeddings", {"model": MODEL, "input": texts}, key)
    return [each["embedding"] for each in answer["data"]]


def _ask(url: str, body: object, headers: Mapping[str, str]) -> Any:
    try:
        answer = urllib3.request("POST", url, json=body, headers=headers, timeout=_TIMEOUT_S, retries=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TransientError(f"demo: {url}: {error}") from error
    if answer.status != 200:
        raise TransientError(f"demo: {url}: {answer.status} {answer.data[:500].decode(errors='replace')}")
    return orjson.loads(answer.data)
