"""Targets of several indices, and tables without a key: data streams, write indices, names made from columns."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from tests.sinks.contract import Feed, car, keys_of, rows_of
from tests.sinks.opensearch_target import CARS
from vector_assets.engine.core import Merge
from vector_assets.engine.errors import ConfigError, PlanError, TargetReplacedError
from vector_assets.sinks.opensearch_names import Pattern
from vector_assets.sinks.opensearch_write import Landing

pytestmark = pytest.mark.service

VISITS = pa.schema([("@timestamp", pa.timestamp("ms", "UTC")), ("site", pa.string()), ("n", pa.int64())])
FIELDS = {"@timestamp": {"type": "date"}, "site": {"type": "keyword"}, "n": {"type": "long"}}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def visit(number, site="a", day=0):
    return (NOON + timedelta(days=day), site, number)


def visits(*numbers, **more):
    return rows_of(*(visit(number, **more) for number in numbers), schema=VISITS)


class Several:
    """A name on the node that stands for more than one index."""

    def __init__(self, make_index, server):
        self.server, self.target = server, make_index({})
        self.name = self.target.index

    def stream(self):
        template = {
            "index_patterns": [self.name], "data_stream": {},
            "template": {"settings": {"number_of_replicas": 0}, "mappings": {"properties": FIELDS}},
        }  # fmt: skip
        self.server.ask("PUT", f"_index_template/{self.name}", template, status=200)
        self.server.ask("PUT", f"_data_stream/{self.name}", status=200)
        return self

    def alias(self, properties, **settings):
        body = {
            "aliases": {self.name: {"is_write_index": True}}, "mappings": {"properties": properties},
            "settings": {"number_of_replicas": 0, **settings},
        }  # fmt: skip
        self.body = {key: body[key] for key in ("mappings", "settings")}
        self.server.ask("PUT", f"{self.name}-000001", body, status=200)
        return self

    def roll_over(self):
        body = self.body if hasattr(self, "body") else None
        self.server.ask("POST", f"{self.name}/_rollover", body, status=200)

    def indices(self):
        return {name: len(self.server.documents(name)) for name in self.server.ask("GET", f"{self.name}", status=200)}

    def numbers(self):
        return sorted(row["n"] for row in self.server.documents(self.name).values())

    def sink(self, schema=VISITS, key=(), **options):
        return self.target.sink(schema, key, **options)


@pytest.fixture
def several(make_index, opensearch):
    return Several(make_index, opensearch)


def lose_the_end(sink, staged):
    """The batch's documents are written, and nobody hears of it."""
    plan, client = sink._prepared(), sink._client()
    from vector_assets.sinks.opensearch_place import place

    tokens = sink._tokens("cars")
    work, _ = place(client, plan, staged.payload, lambda: tokens.begin(staged.token), sink._make)
    Landing(client, sink.options, lambda: None, work).send()


@pytest.mark.parametrize("kind", ["index", "stream", "alias", "pattern"])
def test_rows_without_a_key_are_new_documents_once_however_often_the_batch_is_sent(several, kind, opensearch):
    if kind == "index":
        opensearch.ask("PUT", several.name, {"mappings": {"properties": FIELDS}}, status=200)
    if kind == "stream":
        several.stream()
    if kind == "alias":
        several.alias(FIELDS)
    options = {}
    if kind == "pattern":
        options = {"index": several.name + "-{site}-{@timestamp|yyyy.MM.dd}"}
        several.sink(None, **options).create_target(VISITS, ())
    sink = several.sink(**options)
    assert sink.merge is Merge.APPEND
    feed = Feed(sink)
    assert sink.commit(feed.stage(visits(1, 1, 2))).counts.written == 3
    staged = feed.stage(visits(3, 4, 4))
    lose_the_end(sink, staged)
    if kind in {"stream", "alias"}:
        several.roll_over()
    again = several.sink(**options)
    assert again.find(staged.token, staged.committable) == "ABSENT"
    receipt = again.commit(again.stage(replace_batch(visits(3, 4, 4)), staged.token))
    assert receipt.counts.written == 3
    assert again.commit(staged).counts == receipt.counts
    if kind == "pattern":
        several.name += "-*"
    assert several.numbers() == [1, 1, 2, 3, 4, 4]
    found = pa.Table.from_batches(list(again.scan()))
    assert sorted(found.column("n").to_pylist()) == [1, 1, 2, 3, 4, 4]
    assert {finding.level for finding in again.diagnose()} == {"ok"}


def replace_batch(rows):
    from vector_assets.engine.core import Batch

    return Batch(rows)


def test_rows_of_one_record_are_documents_of_their_own_and_keep_their_ids_when_one_is_refused(several, opensearch):
    opensearch.ask("PUT", several.name, {"mappings": {"properties": FIELDS}}, status=200)
    sink = several.sink()
    rows = visits(1, 2, 3).set_column(3, "_position", pa.array([0, 0, 1], pa.int64()))
    staged = Feed(sink).stage(rows)
    ids = staged.payload.upserts.ids.to_pylist()
    assert len(set(ids)) == 3
    assert ids[1] == f"{ids[0]}-1"
    sink.commit(staged)
    assert several.numbers() == [1, 2, 3]


def test_a_data_stream_takes_no_key_and_needs_its_time(several):
    several.stream()
    with pytest.raises(PlanError, match=r"data stream, which takes new documents only.*PRIMARY KEY \(n\)"):
        several.sink(key=("n",))
    with pytest.raises(PlanError, match="need @timestamp"):
        several.sink(pa.schema([("n", pa.int64())]))


def test_a_document_without_its_time_is_refused_and_the_others_are_not(several):
    several.stream()
    sink = several.sink()
    receipt = sink.commit(Feed(sink).stage(rows_of(visit(1), (None, "a", 2), visit(3), schema=VISITS)))
    assert [row["_position"] for row in receipt.rejected.to_pylist()] == [1]
    assert several.numbers() == [1, 3]


def test_a_roll_over_is_the_same_target_and_a_stream_made_anew_is_not(several, opensearch):
    several.stream()
    sink = several.sink()
    first = sink.prepare(VISITS, ()).incarnation
    feed = Feed(sink)
    sink.commit(feed.stage(visits(1)))
    several.roll_over()
    sink.commit(feed.stage(visits(2)))
    # retention removes what is oldest
    oldest = min(several.indices())
    opensearch.ask("DELETE", oldest, status=200)
    assert several.sink().prepare(VISITS, ()).incarnation == first
    several.roll_over()
    sink.commit(feed.stage(visits(3)))
    opensearch.ask("DELETE", f"_data_stream/{several.name}", status=200)
    opensearch.ask("PUT", f"_data_stream/{several.name}", status=200)
    with pytest.raises(TargetReplacedError):
        sink.commit(feed.stage(visits(4)))
    assert several.sink().prepare(VISITS, ()).incarnation != first


def test_keys_behind_an_alias_are_changed_in_the_index_that_holds_them(several, opensearch):
    several.alias(CARS, knn=True)
    sink = several.target.sink()
    feed = Feed(sink)
    feed.apply(car(1), car(2), car(3))
    several.roll_over()
    feed.apply(car(2, "blue"), car(4, "blue"), deletes=(3, 99))
    settings = opensearch.ask("GET", f"{several.name}/_settings?flat_settings=true", status=200)
    assert {each["settings"]["index.gc_deletes"] for each in settings.values()} == {"3600s"}
    assert several.indices() == {f"{several.name}-000001": 2, f"{several.name}-000002": 1}
    colors = {row["id"]: row["color"] for row in opensearch.documents(several.name).values()}
    assert colors == {1: "red", 2: "blue", 4: "blue"}
    assert sink.rows_of(keys_of(1, 2, 3, 4)).num_rows == 3
    staged = feed.stage(rows_of(car(4, "green"), car(5)))
    lose_the_end(sink, staged)
    several.roll_over()
    sink.commit(staged)
    assert {row["id"]: row["color"] for row in opensearch.documents(several.name).values()} == {
        1: "red", 2: "blue", 4: "green", 5: "red",
    }  # fmt: skip


def test_keys_in_the_name_of_an_index_change_and_delete_rows_where_they_are(several):
    options = {"index": several.name + "-{site}"}
    sink = several.sink(None, **options)
    key = ("site", "n")
    (made,) = sink.create_target(VISITS, key)
    assert made.startswith("index template vector_assets-")
    sink.prepare(VISITS, key)
    feed = Feed(sink)
    sink.commit(feed.stage(rows_of(visit(1), visit(2), visit(1, "b"), visit(3, "Not a name"), schema=VISITS)))
    gone = pa.table({"site": ["a", "a"], "n": pa.array([1, 9], pa.int64()), "_position": pa.array([1, 2], pa.int64())})
    receipt = sink.commit(feed.stage(rows_of(visit(1, "b", 1), schema=VISITS), gone))
    assert (receipt.counts.written, receipt.counts.deleted) == (1, 2)
    several.name += "-*"
    assert {name.rpartition("-")[2]: count for name, count in several.indices().items()} == {"a": 1, "b": 1}
    found = pa.Table.from_batches(list(sink.scan())).sort_by("n")
    assert found.select(["site", "n"]).to_pylist() == [{"site": "b", "n": 1}, {"site": "a", "n": 2}]
    settings = several.server.ask("GET", f"{several.name}/_settings?flat_settings=true", status=200)
    assert {each["settings"]["index.gc_deletes"] for each in settings.values()} == {"3600s"}


def test_a_name_that_no_index_can_have_is_a_reject_with_the_pattern(several):
    options = {"index": several.name + "-{site}"}
    several.sink(None, **options).create_target(VISITS, ())
    sink = several.sink(**options)
    staged = Feed(sink).stage(rows_of(visit(1, "ok"), visit(2, "Upper"), visit(3, None), visit(4, "a*"), schema=VISITS))
    assert [row["_position"] for row in staged.rejected.to_pylist()] == [1, 2, 3]
    assert "makes no name of an index" in staged.rejected.to_pylist()[0]["error"]
    assert "Upper" not in str(staged.rejected.to_pylist())


def test_what_cannot_be_done_by_a_pattern_is_refused_with_the_reason(several):
    options = {"index": several.name + "-{site}"}
    with pytest.raises(PlanError, match="does not exist"):
        several.sink(**options)
    several.sink(None, **options).create_target(VISITS, ())
    with pytest.raises(PlanError, match=r"made from site, which PRIMARY KEY \(n\) leaves out"):
        several.sink(key=("n",), **options)
    with pytest.raises(ConfigError, match="another time when a batch is made again"):
        several.target.options(index="visits-{now()|yyyy}")
    with pytest.raises(PlanError, match="did you mean 'site'"):
        several.sink(index=several.name + "-{sitte}")
    with pytest.raises(PlanError, match="a pattern of a date is for"):
        several.sink(index=several.name + "-{n|yyyy}")


def test_an_alias_of_several_indices_without_a_write_index_is_refused(several, make_index):
    first, second = make_index(), make_index()
    actions = [{"add": {"index": each.index, "alias": several.name}} for each in (first, second)]
    several.server.ask("POST", "_aliases", {"actions": actions}, status=200)
    with pytest.raises(PlanError, match="none of them is its write index"):
        several.sink()


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("v-{at|}", "v-2026_03_01_12_30_05"),
        ("v-{at|yyyy-MM-dd'x'HHmmss}-{day|}", "v-2026-03-01x123005-2026_03_02"),
        ("v-{day|yy.DDD}-{n}", "v-26.061-7"),
        ("v-{day}", "v-2026-03-02"),
    ],
)
def test_dates_are_spelled_as_java_does(pattern, name):
    at = datetime(2026, 3, 1, 12, 30, 5, 600_000)  # noqa: DTZ001
    rows = pa.table({"at": pa.array([at], pa.timestamp("us")), "day": [at.date() + timedelta(days=1)], "n": [7]})
    made = Pattern.parse(pattern)
    made.check(rows.schema)
    assert made.names(rows).to_pylist() == [name]
