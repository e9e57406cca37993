"""The demo's sixth part: a table of MySQL becomes an index of OpenSearch with vectors, from one CALL."""

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vector_assets.cli.declared import opened
from vector_assets.cli.demo_part import Part, Progress, cell, letters_of, run_now, show_newest_batches
from vector_assets.cli.output import heading, say, show_pairs, show_table
from vector_assets.engine import env
from vector_assets.engine.abilities import DISTANCE, Searchable, SearchQuery
from vector_assets.engine.errors import FatalError
from vector_assets.local import demo_articles as world

if TYPE_CHECKING:
    from vector_assets.clients.opensearch_setup import Ready
    from vector_assets.local.demo_mysql import Row

_NEAREST = 3
_TRIES = 5
"""A node that has much to do fails its first connector ("Fetching master key timed out"); the next try goes on."""
_TOLERANCE = 1e-4
"""Vectors come through JSON and float32."""


def _set_up(progress: Progress) -> str:
    """Do what `vector-assets search-setup` does."""
    from vector_assets.clients.opensearch import RefusedError

    for left in reversed(range(_TRIES)):
        try:
            ready = _built(progress)
            break
        except RefusedError as error:
            if not left or "master key" not in str(error):
                raise
            progress("the node has much to do, once more")
    shown = f"vector-assets search-setup pipelines/{world.FOLDER}/{world.SET_UP}"
    made = f"{ready.made} steps" if ready.made else "already there"
    return f"{shown}: {made}; the model answers {ready.dimension} numbers"


def _built(progress: Progress) -> "Ready":
    from vector_assets.clients.opensearch import connect
    from vector_assets.clients.opensearch_setup import Builder
    from vector_assets.declare.search_setup import read_setup

    file = env.pipelines_dir() / world.SET_UP
    wanted = read_setup(file)
    with closing(connect(wanted.connection.login, str(file))) as client:
        return Builder(client, wanted).run(progress)


def _fill(progress: Progress) -> str:
    written = world.fill(progress)
    return (
        f"table {world.TABLE} of MySQL database {world.DATABASE}: {f'{written} rows' if written else 'already there'}"
    )


def _change(progress: Progress) -> str:
    changed = world.change(progress)
    told = f"{changed} rows changed" if changed else "already there"
    return f"an insert, an update, a delete and a changed key in {world.DATABASE}: {told}"


def _run(progress: Progress) -> str:
    return run_now((world.PIPELINE,), progress)


@dataclass(frozen=True, slots=True)
class Account:
    """The table and the index; `right_vectors` are documents whose vector is that of their text."""

    rows: int
    documents: int
    equal: int
    right_vectors: int
    letters: int

    @property
    def adds_up(self) -> bool:
        """True when each row is a document with its values and the vector of its text, and there is no other."""
        wanted = self.rows
        return wanted > 0 and self.documents == self.equal == self.right_vectors == wanted and self.letters == 0


def account(
    rows: "list[Row]", documents: Mapping[str, Mapping[str, Any]], vectors: list[list[float]], letters: int
) -> Account:
    """Compare the rows `id, title, body` with the documents; `vectors` are those of the rows' bodies."""
    equal = right = 0
    for (number, title, body), vector in zip(rows, vectors, strict=True):
        found = documents.get(str(number), {})
        equal += (found.get("id"), found.get("title"), found.get("body")) == (number, title, body)
        right += _is_near(found.get(world.VECTOR), vector)
    return Account(len(rows), len(documents), equal, right, letters)


def _is_near(found: Any, wanted: list[float]) -> bool:
    if not isinstance(found, list) or len(found) != len(wanted):
        return False
    return all(math.isclose(mine, other, abs_tol=_TOLERANCE) for mine, other in zip(found, wanted, strict=True))


def _show() -> list[tuple[str, str]]:
    rows = world.articles()
    with opened(world.PIPELINE) as session:
        vectors = world.embedded([body for _, _, body in rows])
        found = account(rows, world.documents(), vectors, len(letters_of(session)))
        heading("Articles: the table of MySQL and the index of OpenSearch")
        show_pairs(
            [
                ("rows in MySQL", found.rows),
                ("documents", found.documents),
                ("with the row's values", found.equal),
                ("with the vector of their text", f"{found.right_vectors}, of {len(vectors[0]):,} numbers each"),
                ("dead letters", found.letters),
            ]
        )
        show_newest_batches(session)
        for question in world.QUESTIONS:
            _show_nearest(cast(Searchable, session.sink), question)
    if not found.adds_up:
        raise FatalError(f"demo: the index is not what the table says: {found}")
    return [(f"search {world.PIPELINE} --text 'borrowed money' --k 3", "search by text; --hybrid by its words, too")]


def _show_nearest(sink: Searchable, question: str) -> None:
    """Search the index as `vector-assets search` does."""
    heading(f"Articles nearest to: {question}")
    say(f"vector-assets search {world.PIPELINE} --text '{question}' --k {_NEAREST}", "dim")
    result = sink.search(SearchQuery((), _NEAREST, text=question))
    rows = [(cell(row[DISTANCE]), row["title"], row["body"]) for row in result.rows.to_pylist()]
    show_table(("score", "title", "body"), rows, right=("score",))
    say(result.how, "dim")


PART = Part(
    pipelines=(world.PIPELINE,),
    services=world.SERVICES,
    before=(("set-up", _set_up), ("table", _fill)),
    show=_show,
    after=(("changes", _change), ("run", _run)),
    folder=world.FOLDER,
)
