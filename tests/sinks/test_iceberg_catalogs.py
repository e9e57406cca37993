"""What the Iceberg sink promises, over every kind of catalog: the same tests, the real servers."""

import threading
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from tests.fix_iceberg_catalogs import CatalogServer
from tests.sinks.contract import SCHEMA, Feed, car, rows_of
from vector_assets.clients.iceberg import ConflictError, open_catalog
from vector_assets.engine.core import Batch
from vector_assets.engine.errors import ConfigError, FencedError, TargetReplacedError, TransientError, UnavailableError
from vector_assets.sinks.iceberg import IcebergSink
from vector_assets.sinks.iceberg_options import IcebergOptions

pytestmark = pytest.mark.service
CATALOGS = ("sqlite", "postgres", "rest", "hive", "glue")


@pytest.fixture
def server(request, tmp_path) -> CatalogServer:
    name = request.param
    if name in {"rest", "hive", "glue"}:
        return CatalogServer(request.getfixturevalue(f"_{name}_catalog"))
    uri = f"sqlite:///{tmp_path}/catalog.db"
    if name == "postgres":
        postgres = request.getfixturevalue("postgres")
        address = f"{postgres.user}:{postgres.password}@{postgres.host}:{postgres.port}"
        uri = f"postgresql://{address}/{postgres.create_database()}"
    return CatalogServer({"uri": uri, "warehouse": f"file://{tmp_path}/warehouse"})


@pytest.fixture
def open_sink(server) -> Iterator[Callable[..., IcebergSink]]:
    made: list[IcebergSink] = []

    def make(pipeline: str = "cars", schema: pa.Schema = SCHEMA, key: tuple[str, ...] = (), **more: str) -> IcebergSink:
        given = {
            "connector": "iceberg", "catalog-database": server.database, "catalog-table": "cars",
            "vector.dimensions": "feature:3", "write.upsert.enabled": "true" if key else "false",
            **server.options, **more,
        }  # fmt: skip
        sink = IcebergSink(IcebergOptions.parse(given, "connector iceberg"), None, pipeline)
        made.append(sink)
        sink.prepare(schema, key)
        return sink

    yield make
    for sink in made:
        sink.close()


def found(server: CatalogServer, *columns: str) -> list[tuple[object, ...]]:
    """The table's rows by a client of its own."""
    given = {"connector": "iceberg", "catalog-database": server.database, "catalog-table": "cars", **server.options}
    catalog = open_catalog(IcebergOptions.parse(given, "reader").login)
    try:
        rows = catalog.load_table((server.database, "cars")).scan().to_arrow().select(list(columns)).to_pylist()
    finally:
        if engine := getattr(catalog, "engine", None):
            engine.dispose()
        catalog.close()
    return sorted(tuple(row.values()) for row in rows)


@pytest.mark.parametrize("server", CATALOGS, indirect=True)
def test_a_table_is_made_filled_evolved_and_read_back(server, open_sink):
    sink = open_sink()
    feed = Feed(sink)
    feed.apply(car(1), car(2, "blue"))
    wider = pa.schema([*SCHEMA, ("price", pa.int64())])
    assert sink.evolve(wider) == ("column price added as int64",)
    staged = sink.stage(Batch(rows_of((3, "red", "{1,2,3}", 7), schema=wider)), feed.token(1))
    sink.commit(staged)
    assert found(server, "id", "color", "price") == [(1, "red", None), (2, "blue", None), (3, "red", 7)]
    # another process finds the table, and that it fits
    assert open_sink(schema=wider).newest_seq("cars") == 2


@pytest.mark.parametrize("server", CATALOGS, indirect=True)
def test_a_batch_whose_commit_was_not_heard_of_is_found_by_its_token(server, open_sink):
    feed = Feed(open_sink())
    feed.apply(car(1))
    staged = feed.stage(rows_of(car(2)))
    receipt = feed.sink.commit(staged)
    # the process is gone; the next one asks before it writes
    after = open_sink()
    assert after.find(staged.token, staged.committable) == "APPLIED"
    assert after.receipt(staged.token) == receipt
    again = after.stage(Batch(rows_of(car(2))), staged.token)
    assert after.commit(again) == receipt
    assert found(server, "id") == [(1,), (2,)]


@pytest.mark.parametrize("server", ["glue"], indirect=True)
def test_a_commit_that_the_client_itself_sent_twice_is_found_and_its_files_stay(server, open_sink, monkeypatch):
    from moto.core.exceptions import JsonRESTError
    from moto.glue.responses import GlueResponse

    feed = Feed(open_sink(key=("id",)))
    feed.apply(car(1), car(2))
    update_table, asked = GlueResponse.update_table, []

    def losing(response):
        asked.append(response)
        done = update_table(response)
        if len(asked) == 1:
            lost = JsonRESTError("InternalServiceException", "the answer was lost")
            lost.code = 500
            raise lost
        return done

    monkeypatch.setattr(GlueResponse, "update_table", losing)
    staged = feed.stage(rows_of(car(2, "blue")))
    # botocore asks again, and is told that another one was first: itself
    with pytest.raises(TransientError, match="sent 2 times"):
        feed.sink.commit(staged)
    assert len(asked) == 2
    assert feed.sink.find(staged.token, staged.committable) == "APPLIED"
    feed.apply(car(3))
    assert found(server, "id", "color") == [(1, "red"), (2, "blue"), (3, "red")]


@pytest.mark.parametrize("server", CATALOGS, indirect=True)
def test_two_writers_at_once_land_every_batch_of_both(server, open_sink):
    open_sink()
    failures = []

    def write(name: str) -> None:
        sink = open_sink(name)
        feed = Feed(sink, pipeline=name)
        for number in range(6):
            staged = feed.stage(rows_of(car(number, name)))
            for _ in range(60):
                try:
                    sink.commit(staged)
                    break
                except TransientError:
                    if sink.find(staged.token, None) == "APPLIED":
                        break
            else:
                failures.append((name, number))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert found(server, "color", "id") == [(name, number) for name in ("one", "two") for number in range(6)]


@pytest.mark.parametrize("server", CATALOGS, indirect=True)
def test_a_writer_with_an_old_view_of_the_table_is_refused(server, open_sink):
    zombie = Feed(open_sink())
    zombie.apply(car(1))
    staged = zombie.stage(rows_of(car(2, "zombie")))
    owner = Feed(open_sink(), fence=2)
    owner.seq, owner.offset = 1, 1
    owner.apply(car(2, "owner"))
    with pytest.raises(ConflictError):
        zombie.sink.commit(staged)
    with pytest.raises(FencedError):
        zombie.sink.commit(staged)
    assert found(server, "id", "color") == [(1, "red"), (2, "owner")]


@pytest.mark.parametrize("server", ["hive"], indirect=True)
def test_a_writer_whose_lock_expired_while_it_slept_overwrites_nothing(server, open_sink, monkeypatch):
    from hive_metastore.ttypes import ShowLocksRequest, UnlockRequest

    slow = Feed(open_sink("slow"), pipeline="slow")
    slow.apply(car(1, "slow"))
    other = Feed(open_sink("other"), pipeline="other")
    catalog = slow.sink._connected()
    staged, write = slow.stage(rows_of(car(2, "slow"))), type(catalog)._write_metadata

    def sleeping(*arguments, **named):
        monkeypatch.undo()
        write(*arguments, **named)
        # the metastore takes a lock away that was not heard of for a while
        with other.sink._connected()._client as client:
            for lock in client.show_locks(ShowLocksRequest()).locks:
                client.unlock(UnlockRequest(lockid=lock.lockid))
        other.apply(car(3, "other"))

    monkeypatch.setattr(type(catalog), "_write_metadata", staticmethod(sleeping))
    with pytest.raises(ConflictError, match="lock"):
        slow.sink.commit(staged)
    assert slow.sink.find(staged.token, staged.committable) == "ABSENT"
    slow.sink.commit(staged)
    assert found(server, "id", "color") == [(1, "slow"), (2, "slow"), (3, "other")]


@pytest.mark.parametrize("server", CATALOGS, indirect=True)
def test_rows_of_a_batch_are_replaced(server, open_sink):
    feed = Feed(open_sink(batch_column="_batch"))
    feed.apply(car(1), car(2))
    feed.apply(car(3))
    token = feed.token(0)
    feed.sink.commit(feed.sink.stage(Batch(rows_of(car(1, "blue")), rewrites=True, root=1), token))
    assert found(server, "id", "color", "_batch") == [(1, "blue", 1), (3, "red", 2)]
    assert [feed.sink.rows_of_batch(root) for root in (1, 2, 3)] == [1, 1, 0]


@pytest.mark.parametrize("server", CATALOGS, indirect=True)
def test_a_table_that_was_dropped_is_named(server, open_sink):
    feed = Feed(open_sink())
    feed.apply(car(1))
    catalog = feed.sink._connected()
    catalog.drop_table((server.database, "cars"))
    with pytest.raises(TargetReplacedError, match="was dropped"):
        feed.sink.find(feed.token(1), None)


@pytest.mark.parametrize(
    "options",
    [
        {"catalog-type": "rest", "uri": "http://127.0.0.1:1", "warehouse": "w"},
        {"catalog-type": "hive", "uri": "thrift://127.0.0.1:1", "warehouse": "file:///tmp/none"},
        {
            "catalog-type": "glue", "warehouse": "file:///tmp/none", "glue.endpoint": "http://127.0.0.1:1",
            "glue.region": "us-east-1", "glue.access-key-id": "a", "glue.secret-access-key": "b",
            "glue.max-retries": "0",
        },
    ],
    ids=lambda options: options["catalog-type"],
)  # fmt: skip
def test_a_catalog_that_does_not_answer_is_named(options):
    given = {"connector": "iceberg", "catalog-database": "shop", "catalog-table": "cars", **options}
    sink = IcebergSink(IcebergOptions.parse(given, "connector iceberg"), None, "cars")
    with pytest.raises(UnavailableError, match=r"shop\.cars"):
        sink.prepare(SCHEMA, ())


def test_the_retries_of_glue_are_a_number():
    given = {"connector": "iceberg", "catalog-database": "shop", "catalog-table": "cars", "catalog-type": "glue"}
    options = IcebergOptions.parse({**given, "warehouse": "file:///tmp/none", "glue.max-retries": "few"}, "here")
    with pytest.raises(ConfigError, match=r"option 'glue.max-retries': found 'few', wanted a whole number"):
        IcebergSink(options, None, "cars").prepare(SCHEMA, ())
