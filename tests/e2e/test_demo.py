"""`vector-assets demo` as a newcomer runs it: a process of its own, services of its own, from nothing and once more."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient

from tests.fix_services import PREFIX, unavailable
from vector_assets.cli import demo as steps
from vector_assets.cli import (
    demo_articles,
    demo_books,
    demo_cars,
    demo_dagster,
    demo_fetch,
    demo_orders,
    demo_people,
    demo_visits,
)
from vector_assets.declare import load_folder
from vector_assets.declare.search_setup import read_setup
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, FatalError, TransientError
from vector_assets.engine.hours import Calendar
from vector_assets.engine.session import Books
from vector_assets.local import demo_articles as articles
from vector_assets.local import demo_books as bookshop
from vector_assets.local import demo_cars as world
from vector_assets.local import demo_orders as shop
from vector_assets.local import demo_people as people
from vector_assets.local import demo_visits as visits
from vector_assets.local import opensearch_home, process, services
from vector_assets.local.demo_postgres import connected

REPOSITORY = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("vector-assets")


def test_the_records_are_the_same_at_every_call_and_hold_what_the_demo_promises():
    records = world.records()
    assert records == world.records()
    assert len(records) == world.RECORDS
    poison = records[500::1000]
    good = [record for place, record in enumerate(records) if place % 1000 != 500]
    ids = [int(record.split(b"\t")[0]) for record in good]
    assert (len(poison), len(ids) - len(set(ids))) == (world.POISON, world.DUPLICATES)
    assert all(record.count(b"\t") == 4 and record.count(b",") == world.DIMENSION - 1 for record in good)


def test_the_changes_leave_who_a_plain_reading_of_them_leaves():
    """Another reading of the same records than the one that made them: value by value, by the rules of upsert-kafka."""
    left = {}
    bad = 0
    for key, value in people.changes().records:
        try:
            number = json.loads(key)["id"]
            change = json.loads(value) if value is not None else {"op": "-D"}
            data = change.get("data", {})
            is_good = change["op"] in {"+I", "-U", "+U", "-D"} and (
                value is None
                or (len(data["name"]) <= 40 and data["age"] < 2**31 and len(list(map(float, data["vec"]))) == 8)
            )
        except (ValueError, TypeError):
            is_good = False
        if not is_good:
            bad += 1
        elif change["op"] in {"-U", "-D"}:
            del left[number]
        else:
            left[number] = data
    assert bad == people.POISON
    expected = {number: vars_of(person) for number, person in people.changes().left.items()}
    assert left == expected
    assert len(people.changes().records) == people.RECORDS


def test_the_orders_are_what_a_plain_reader_of_json_finds_in_the_messages():
    found, bad = {}, 0
    for message in shop.orders().messages:
        try:
            order = json.loads(message, parse_float=Decimal, parse_constant=refuse)
            found[order["id"]] = order
        except (ValueError, TypeError):
            bad += 1
    assert (bad, len(found)) == (shop.POISON, shop.RECORDS - shop.POISON)
    assert found == shop.orders().documents
    new = {number for number, order in found.items() if "coupon" in order}
    assert new == {number for number in found if number > shop.DRIFT}
    assert any(found[number]["points"] > 2**31 for number in new)
    assert all(found[number]["points"] < 2**31 for number in found.keys() - new)


def refuse(word: str) -> None:
    raise ValueError(word)


def test_the_visits_have_strangers_and_customers_who_are_new_on_the_last_day_only():
    world = visits.world()
    known, new = (set(world.customers[day]) for day in (visits.DAYS[0], visits.DAYS[-1]))
    assert known < new
    came = {day: {row[1] for row in rows} for day, rows in world.visits.items()}
    late = {row[0] for row in new - known}
    assert [bool(came[day] & late) for day in visits.DAYS] == [False, False, True]
    assert came[visits.DAYS[0]] - {row[0] for row in new}
    assert len({row[0] for rows in world.visits.values() for row in rows}) == len(visits.DAYS) * visits.ROWS


def test_books_are_of_authors_and_sales_of_books_whatever_comes_later():
    rows = bookshop.world()
    authors, books = ({row[0] for row in rows[table]} for table in ("authors", "books"))
    assert {row[1] for row in rows["books"]} <= authors
    assert {row[1] for row in rows["sales"]} <= books
    assert len(rows["sales"]) > bookshop.SALES
    assert bookshop.SALES + 1 in {row[0] for row in rows["sales"]}
    assert bookshop.BOOKS + 1 in books


def vars_of(person: people.Person) -> dict[str, object]:
    return {"id": person.id, "name": person.name, "age": person.age, "vec": list(person.vec)}


def test_an_interrupted_filling_of_the_topic_is_finished(own_kafka, monkeypatch):
    kafka = own_kafka()
    monkeypatch.setenv(env.secret_variable("kafka_bootstrap_servers"), kafka.bootstrap_servers)
    kafka.create_topic(1, name=world.TOPIC)
    kafka.produce(world.TOPIC, world.records()[:4000])
    assert world.fill_topic(print) == world.Filled(total=10_000, before=4000)
    assert world.fill_topic(print) == world.Filled(total=10_000, before=10_000)
    assert [message.value() for message in kafka.read(world.TOPIC)] == world.records()


ACCOUNTS = {
    "all there": (demo_cars.Account(10_000, 0, 9985, 5, 10), True),
    "read twice after a reset": (demo_cars.Account(20_000, 0, 9985, 9995, 20), True),
    "a row lost": (demo_cars.Account(10_000, 0, 9984, 5, 10), False),
    "a row too many": (demo_cars.Account(10_000, 0, 9986, 5, 10), False),
    "records left in the topic": (demo_cars.Account(9000, 1000, 8985, 5, 10), False),
}


PEOPLE = {
    "all there": (demo_people.Account(5000, 0, 10, 1802, is_equal=True), True),
    "read twice after a reset": (demo_people.Account(10_000, 0, 20, 1802, is_equal=True), True),
    "other rows": (demo_people.Account(5000, 0, 10, 1802, is_equal=False), False),
    "a good record refused": (demo_people.Account(5000, 0, 11, 1802, is_equal=True), False),
    "records left in the topic": (demo_people.Account(4000, 1000, 8, 1802, is_equal=True), False),
}


ORDERS = {
    "all there": (demo_orders.Account("orders", 4000, 0, 5, 3995, 0, is_equal=True), True),
    "read twice after a reset": (demo_orders.Account("orders", 8000, 0, 10, 7990, 0, is_equal=True), True),
    "other documents": (demo_orders.Account("orders", 4000, 0, 5, 3995, 0, is_equal=False), False),
    "a row twice": (demo_orders.Account("orders", 4000, 0, 5, 3996, 0, is_equal=True), False),
    "messages left in the topic": (demo_orders.Account("orders", 3000, 1000, 4, 2996, 0, is_equal=False), False),
}


VISITS = {
    "all there": (demo_visits.Account((4500, 4500), 0, 0, 4500, are_rows_equal=True, are_counts_equal=True), True),
    "other rows": (demo_visits.Account((4500, 4500), 0, 0, 4500, are_rows_equal=False, are_counts_equal=True), False),
    "other counts": (demo_visits.Account((4500, 4500), 0, 0, 4500, are_rows_equal=True, are_counts_equal=False), False),
    "a partition unread": (
        demo_visits.Account((4500, 3000), 1500, 0, 4500, are_rows_equal=True, are_counts_equal=True),
        False,
    ),
}


BOOKS = {
    "all there": (demo_books.Account("books", 309, 309, 0, 0), True),
    "a row too many": (demo_books.Account("books", 309, 310, 1, 0), False),
    "another value": (demo_books.Account("books", 309, 309, 1, 0), False),
    "a dead letter": (demo_books.Account("books", 309, 309, 0, 1), False),
    "no rows at all": (demo_books.Account("books", 0, 0, 0, 0), False),
}


ARTICLES = {
    "all there": (demo_articles.Account(16, 16, 16, 16, 0), True),
    "a document that should have gone": (demo_articles.Account(16, 17, 16, 16, 0), False),
    "an old text": (demo_articles.Account(16, 16, 15, 16, 0), False),
    "the vector of an old text": (demo_articles.Account(16, 16, 16, 15, 0), False),
    "no rows at all": (demo_articles.Account(0, 0, 0, 0, 0), False),
}


def test_rows_are_compared_value_by_value():
    assert demo_books.differing([(1, "a"), (2, None)], [(1, "a"), (2, None)]) == 0
    assert demo_books.differing([(1, "a"), (2, None)], [(1, "b"), (2, "")]) == 2
    assert demo_books.differing([(1, "a"), (2, None)], [(1, "a")]) == 1


def test_a_document_is_compared_with_its_row_and_the_vector_of_its_text():
    rows = [(1, "t", "b"), (2, "u", "c"), (3, "v", "d")]
    documents = {
        "1": {"id": 1, "title": "t", "body": "b", articles.VECTOR: [0.5, 0.25]},
        "2": {"id": 2, "title": "u", "body": "old", articles.VECTOR: [0.5, 0.26]},
        "3": {"id": 3, "title": "v", "body": "d"},
    }
    found = demo_articles.account(rows, documents, [[0.5, 0.25]] * 3, 0)
    assert found == demo_articles.Account(rows=3, documents=3, equal=2, right_vectors=1, letters=0)


@pytest.mark.parametrize(
    ("account", "adds_up"),
    [*ACCOUNTS.values(), *PEOPLE.values(), *ORDERS.values(), *VISITS.values(), *BOOKS.values(), *ARTICLES.values()],
    ids=[
        *ACCOUNTS,
        *(f"people: {name}" for name in PEOPLE),
        *(f"orders: {name}" for name in ORDERS),
        *(f"visits: {name}" for name in VISITS),
        *(f"books: {name}" for name in BOOKS),
        *(f"articles: {name}" for name in ARTICLES),
    ],
)
def test_the_numbers_must_add_up(account, adds_up):
    assert account.adds_up is adds_up


@pytest.fixture
def placeholders(monkeypatch, tmp_path):
    """The demo's script compiles; nothing it names is there."""
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(REPOSITORY / "pipelines"))
    for name, value in steps._secrets(steps._known_parts(), {}).items():
        monkeypatch.setenv(name, value)


def test_the_search_part_s_files_are_right_and_nobody_else_reads_them(placeholders):
    folder = env.pipelines_dir()
    assert [each.name for each in load_folder(folder / articles.FOLDER, offline=True).pipelines] == [articles.PIPELINE]
    assert articles.PIPELINE not in {each.name for each in load_folder(folder, offline=True).pipelines}
    found = read_setup(folder / articles.FOLDER / articles.SET_UP)
    assert (found.index.name, found.dimensions) == (articles.PIPELINE, {articles.VECTOR: 1024})


@pytest.fixture
def nothing_fetched(monkeypatch, tmp_path) -> Path:
    """A cache without OpenSearch."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_a_network_the_demo_goes_on_without_the_part_that_needs_the_download(
    nothing_fetched, monkeypatch, capsys
):
    def fetch(progress):
        raise TransientError("cannot download OpenSearch 2.19.1: no network")

    monkeypatch.setattr(opensearch_home, "fetch", fetch)
    parts = steps._known_parts()
    why = "cannot download OpenSearch 2.19.1: no network"
    assert demo_fetch.left_out(parts, is_needed=False) == {"search": why}
    said = capsys.readouterr().out
    assert "OpenSearch 2.19.1 for search: 440 MB are downloaded, once; 134 MB stay in" in said
    with pytest.raises(TransientError, match=why):
        demo_fetch.left_out(parts, is_needed=True)
    assert demo_fetch.left_out({"mysql": parts["mysql"]}, is_needed=True) == {}


def test_a_download_is_measured_by_what_it_has_brought(nothing_fetched):
    building = opensearch_home.folder().with_name(f"{opensearch_home.folder().name}.abc") / "repository" / "org"
    building.mkdir(parents=True)
    (building / "a.zip").write_bytes(b"x" * 100)
    seen: dict[Path, int] = {}
    opensearch_home.measure(seen)
    (building / "a.zip").unlink()
    (building / "b.jar").write_bytes(b"x" * 7)
    opensearch_home.measure(seen)
    assert sum(seen.values()) == 107


HOURS = ["2026-03-01-10:00", "2026-03-01-11:00"]


@pytest.mark.parametrize("code", [0, 1], ids=["the first run succeeds", "the first run fails"])
def test_a_run_during_which_the_hour_turns_is_followed_by_one_of_the_next_hour(placeholders, monkeypatch, code):
    ran: list[str] = []

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        ran.append(arguments[-1])
        return subprocess.CompletedProcess(arguments, code if len(ran) == 1 else 0, "", "")

    monkeypatch.setattr(demo_dagster, "_run", run)
    monkeypatch.setattr(Calendar, "now", lambda self: HOURS[len(ran)])
    monkeypatch.setattr(Calendar, "is_open", lambda self, key: key == HOURS[1])
    assert HOURS[1] in demo_dagster.materialize(steps.Spinner("asset"), ["car_info", "people"])
    assert ran == HOURS


def test_a_run_that_fails_ends_the_demo_with_what_dagster_said(placeholders, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "dagster says why")
    monkeypatch.setattr(demo_dagster, "_run", lambda arguments: failed)
    with pytest.raises(FatalError, match="exit code 1:\ndagster says why"):
        demo_dagster.materialize(steps.Spinner("asset"), ["car_info", "people"])


def test_the_demo_needs_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(demo_dagster, "PIPELINES", tmp_path)
    with pytest.raises(ConfigError, match="the demo needs the repository"):
        steps.demo()


@pytest.fixture
def demo_home() -> Iterator[Path]:
    """A home that a server running as another user can reach; its services are stopped when the test ends."""
    home = Path(tempfile.mkdtemp(prefix=PREFIX))
    home.chmod(0o711)
    (home / "session").write_text(f"{os.getpid()} {process.identity(os.getpid())}")
    (home / "dagster_home").mkdir()
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home / "dagster_home")
    yield home
    with env.overridden(VECTOR_ASSETS_HOME=str(home)):
        services.down()
    shutil.rmtree(home)


def run(home: Path, *arguments: str, cwd: Path = REPOSITORY, **more: str) -> subprocess.CompletedProcess[str]:
    variables = {"VECTOR_ASSETS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster_home"), **more}
    return subprocess.run(
        [COMMAND, *arguments], cwd=cwd, env=env.child_environment(**variables), capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


def table() -> list[tuple[object, ...]]:
    """Rows of the table with their versions."""
    with connected(world.DATABASE) as connection:
        return connection.execute(f"SELECT id, xmin::text, ctid::text FROM {world.TABLE} ORDER BY id").fetchall()


def books_of(pipeline: str) -> tuple[object, ...]:
    """Batches and dead letters of a pipeline."""
    with closing(Books.open()) as books:
        return books.ledger.batches(pipeline), books.ledger.dead_letters.listed(pipeline, state=None)


def collection() -> list[dict[str, object]]:
    """Rows of the collection, read by pymilvus' own client."""
    uri = f"http://{env.secret('milvus_endpoint')}:{env.secret('milvus_port')}"
    # of its own: a shared one stays open, pings too often for Milvus Lite, and the next client gets its broken channel
    with closing(MilvusClient(uri=uri, dedicated=True)) as client:
        found = client.query("people", "id >= 0", output_fields=["*"], consistency_level="Strong")
    return sorted((dict(row) for row in found), key=lambda row: row["id"])


def started(home: Path) -> set[str]:
    return {file.parent.name for file in home.glob("*/process.json")}


CARS_TOLD = (
    r"rows landed +9,985$",
    r"conflicts +5 ",
    r"column feature: 9 dimensions, wanted 10$",
    r"by the index car_info_by_feature$",
    r"<-> '\[",
)
PEOPLE_TOLD = (
    r"rows left +1,802$",
    r"each as its last change says +yes$",
    r"column vec: 7 dimensions, wanted 8$",
    r"COSINE by the AUTOINDEX index of vec$",
)


LAKE_TOLD = (
    r"orders +4,000 +5 +3,995 +0 +yes$",
    r"orders_archive +4,000 +5 +3,995 +1,998 +yes$",
    r"column points widened from INT to BIGINT for points$",
    r"column coupon STRING added for coupon$",
    r"lake-json: no JSON: found NaN, ",
    r"Hangzhou +684 +167672\.11 +345 +345$",
)
VISITS_TOLD = (
    r"rows landed +4,500$",
    r"of a known customer +4,290$",
    r"each as the tables say +yes$",
    r"each as often as it came +yes$",
    r"ds=20260302: customers ds=20260301@",
    r"ds=20260303: customers ds=20260303@",
)


BOOKS_TOLD = (
    r"vector-assets capture pipelines/bookshop.yaml: \S+ new tables",
    r"^authors +30 +30 +0 +0$",
    r"^books +309 +309 +0 +0$",
    r"^sales +([\d,]+) +\1 +0 +0$",
    r"^en +\d+ +\d",
)
ARTICLES_TOLD = (
    r"rows in MySQL +16$",
    r"documents +16$",
    r"with the row's values +16$",
    r"with the vector of their text +16, of 1,024 numbers each$",
    r"Sloths hang in trees",
)


@pytest.mark.service
def test_the_demo_works_from_nothing_part_by_part_and_a_second_one_changes_nothing(demo_home):
    first = run(demo_home, "demo", "milvus", "lake")
    if "cannot download" in first.stderr or "pip install" in first.stderr:
        unavailable(first.stderr.strip())
    tells(first, *PEOPLE_TOLD, *LAKE_TOLD, r"dead letters +10$", r"^make dev ")
    assert started(demo_home) == {"kafka", "milvus", "s3"}
    with env.overridden(VECTOR_ASSETS_HOME=str(demo_home)):
        left = collection()
        assert [approximately(row) for row in left] == [
            approximately(vars_of(person)) for _, person in sorted(people.changes().left.items())
        ]
        jobs = (people.PIPELINE, *shop.PIPELINES)
        batches = [books_of(name) for name in jobs]
        whole = run(demo_home, "demo")
        tells(whole, *CARS_TOLD, *PEOPLE_TOLD, *LAKE_TOLD, *VISITS_TOLD, *BOOKS_TOLD, *ARTICLES_TOLD)
        tells(whole, "collection people is there", "people_changes: already there", "archive: already there")
        assert (collection(), [books_of(name) for name in jobs]) == (left, batches)
        tour(demo_home)
        before = landed()
        again = run(demo_home, "demo", "adbpg", "maxcompute", "mysql", "search")
        tells(again, "ds=20260303: already there; no new batches", "run articles: no new batches")
        assert not re.search(r"\d+ new (batches|tables)", again.stdout)
        tells(again, *CARS_TOLD, *VISITS_TOLD, *BOOKS_TOLD, *ARTICLES_TOLD)
        assert again.stdout.count("already there") == 10
        assert landed() == before
    down = run(demo_home, "services", "down", "--json")
    assert down.returncode == 0, down.stderr
    assert not started(demo_home)


def landed() -> tuple[object, ...]:
    """What the parts that are run again have landed, and what their books say."""
    jobs = (world.PIPELINE, *visits.PIPELINES, *bookshop.PIPELINES, articles.PIPELINE)
    delta = {name: bookshop.landed_rows(name, names) for name, names in bookshop.columns().items()}
    return table(), visits.landed(), delta, articles.documents(), [books_of(name) for name in jobs]


def tour(home: Path) -> None:
    """Follow the README: its first script and the commands below it, in a copy of pipelines/."""
    part = (REPOSITORY / "README.md").read_text().partition("## Five minutes")[2]
    (script, *_), (commands,) = (re.findall(rf"```{kind}\n(.*?)```", part, re.DOTALL) for kind in ("sql", "sh"))
    folder = home / "tour" / "pipelines"
    shutil.copytree(REPOSITORY / "pipelines", folder)
    (folder / "young_people.sql").write_text(script)
    said: dict[str, str] = {}
    for line in commands.splitlines():
        name, *arguments = shlex.split(line, comments=True)
        assert name == "vector-assets"
        done = run(home, *arguments, cwd=folder.parent, VECTOR_ASSETS_PIPELINES=str(folder))
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        said[" ".join(arguments[:3])] = done.stdout
    young = sum(person.age < 30 for person in people.changes().left.values())
    assert f"{young} rows expected, {young} in the target" in said["reconcile young_people"]
    assert said["search young_people --vector"].count("\n") == 6
    assert "(the record has no key)" in said["explain young_people --offset"]


def approximately(row: dict[str, object]) -> dict[str, object]:
    """A row whose vector is what FLOAT keeps of it."""
    return row | {"vec": np.array(row["vec"], np.float32).tolist()}


def tells(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    """Hold a demo to what it should have said."""
    assert done.returncode == 0, done.stderr + done.stdout
    for told in expected:
        assert re.search(told, done.stdout, re.MULTILINE), (told, done.stdout)


def test_a_part_that_is_not_known_is_refused_before_anything_starts(tmp_path):
    done = run(tmp_path, "demo", "milvsu")
    assert (done.returncode, done.stdout) == (1, "")
    assert "unknown part 'milvsu'" in done.stderr
    assert "'milvus'" in done.stderr
    assert not list(tmp_path.iterdir())
