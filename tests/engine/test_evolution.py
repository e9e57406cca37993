"""Columns that change while a pipeline runs: the same table whoever was quicker, and whatever stopped it on the way."""

from dataclasses import dataclass, field, replace

import pyarrow as pa
import pytest

from tests.engine.memory import MemorySink, MemorySource, World
from vector_assets.cli.schema_versions import schema_json, show_schema
from vector_assets.engine import run
from vector_assets.engine.core import KIND, POSITION, Batch, BatchToken, Counts, Receipt, Staged, Target, WireLimits
from vector_assets.engine.errors import ConfigError, FatalError, PlanError, TransientError
from vector_assets.engine.evolution import check_evolvable
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.run import Runner
from vector_assets.engine.schema import LogicalType, Table
from vector_assets.engine.schema_history import history
from vector_assets.formats.lake_fields import RESCUED, LakeField, rebuild
from vector_assets.formats.lake_json import LakeJsonDecoder, LakeJsonOptions

HOUR = "2999-01-01-00:00"
WHERE = ("numbers", "memory://rows")
FIELDS = (LakeField(("id",), "id", LogicalType("INT")), LakeField(("name",), "name"))


@dataclass
class LakeSink(MemorySink):
    """Keeps rows as dicts under columns that it changes when asked; stages only rows of exactly its columns."""

    schema: pa.Schema | None = None
    rows: list[dict[str, object]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    refuses: frozenset[str] = frozenset()
    """Columns that are not widened."""
    outages: int = 0

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        if self.schema is None:
            self.schema = schema
        if missing := set(schema.names) - set(self.schema.names):
            raise PlanError(f"columns {missing} are missing")
        return Target("memory://rows", (), {}, self.cell.incarnation, "exactly-once")

    def evolve(self, schema: pa.Schema) -> tuple[str, ...]:
        if self.outages:
            self.outages -= 1
            raise TransientError("busy")
        made = self.would_evolve(schema)
        fields = {each.name: each for each in self.schema}
        self.schema = pa.schema(list((fields | {each.name: each for each in schema}).values()))
        self.log += made
        return made

    def would_evolve(self, schema: pa.Schema) -> tuple[str, ...]:
        fields = {each.name: each for each in self.schema}
        for each in schema:
            if each.name in fields and each.type != fields[each.name].type and each.name in self.refuses:
                raise PlanError(f"{each.name} stays {fields[each.name].type}")
        return tuple(each.name for each in schema if each.name not in fields or fields[each.name] != each)

    def stage(self, batch: Batch, token: BatchToken) -> Staged:
        hidden = [name for name in (KIND, POSITION) if name in batch.upserts.column_names]
        found = batch.upserts.drop_columns(hidden).schema
        if found != self.schema:
            raise PlanError(f"found {found}, wanted {self.schema}")
        return Staged(token, None, payload=batch)

    def commit(self, staged: Staged) -> Receipt:
        with self.cell.lock:
            self._advance(staged.token)
            self.rows += staged.payload.upserts.drop_columns([POSITION]).to_pylist()
            counts = Counts(written=staged.payload.upserts.num_rows)
            self.cell.batches[staged.token.seq] = (staged.token.id, counts, [])
        return self.receipt(staged.token)

    def table(self) -> pa.Table:
        return pa.Table.from_pylist(self.rows, schema=self.schema)


@dataclass
class LakeWorld(World):
    """A pipeline of JSON documents with the mode evolve."""

    drift: str = "evolve"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sink = LakeSink(self.cell)

    def pipeline(self) -> Pipeline:
        decoder = LakeJsonDecoder(FIELDS, LakeJsonOptions(layers=2, drift=self.drift))
        table = Table("numbers", decoder.columns)
        return replace(super().pipeline(), decoder=decoder, source_table=table, sink_table=table, schema=table.schema)


def documents() -> list[bytes]:
    """Sixty records; a new member, a nested one and wider numbers come up in the middle."""
    found = [f'{{"id":{n},"name":"n{n}"}}' for n in range(60)]
    found[17] = '{"id":17,"color":"red"}'
    found[18] = '{"id":18,"color":null}'
    found[33] = '{"id":3000000000,"device":{"os":"x"}}'
    found[34] = '{"id":34,"device":{"os":"y","v":1}}'
    found[35] = '{"id":"many","color":3}'
    found[50] = '{"id":50.5,"device":7}'
    return [text.encode() for text in found]


@pytest.fixture
def world(tmp_path) -> LakeWorld:
    return LakeWorld(tmp_path, MemorySource({"t@a/0": documents()}))


def drain(world: LakeWorld) -> None:
    with world.session() as session:
        list(Runner(session).drain(HOUR))


def test_columns_are_added_and_widened_between_batches(world):
    drain(world)
    assert set(world.sink.log) == {"color", "id", "device_os", "device_v"}
    assert str(world.sink.schema.field("id").type) == "decimal128(38, 18)"
    rows = {int(row["id"]): row for row in world.sink.rows if row["id"] is not None}
    assert rows[17]["color"] == "red"
    assert (rows[34]["device_os"], rows[34]["device_v"]) == ("y", 1)
    assert rows[3_000_000_000]["device_os"] == "x"
    assert [row[RESCUED] for row in world.sink.rows if row[RESCUED]] == [
        '{"color":null}', '{"id":"many","color":3}', '{"device":7}'
    ]  # fmt: skip


def test_every_row_rebuilds_its_document_under_the_columns_of_the_end(world):
    import json
    from decimal import Decimal

    drain(world)
    with world.session() as session, session.leased() as stages:
        fields = stages.schemas.current.pipeline.decoder.fields
    sources = [json.loads(text, parse_float=Decimal) for text in documents()]
    assert [rebuild(row, row[RESCUED], fields) for row in world.sink.table().to_pylist()] == sources


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("ahead", [1, 6])
@pytest.mark.parametrize("rows", [1, 7, 60])
def test_the_table_depends_neither_on_who_was_quicker_nor_on_batches(
    world, tmp_path, monkeypatch, workers, ahead, rows
):
    drain(world)
    monkeypatch.setattr(run, "WORKERS", workers)
    monkeypatch.setattr(run, "IN_FLIGHT", ahead)
    (tmp_path / "other").mkdir()
    other = LakeWorld(tmp_path / "other", MemorySource({"t@a/0": documents()}))
    other.settings["vector-assets.batch.max-rows"] = str(rows)
    other.sink.wire = WireLimits(rows, 0.05)
    drain(other)
    assert other.sink.table().equals(world.sink.table())


def test_history_says_which_record_of_which_batch_caused_what(world):
    drain(world)
    versions = history(world.books.ledger, *WHERE)
    told = [(v.version, v.seq, [(c.what, c.split, c.offset) for c in v.changes]) for v in versions]
    seqs = [seq for _, seq, _ in told]
    assert seqs == sorted(seqs)
    assert [change for _, _, changes in told for change in changes] == [
        ("column color STRING added for color", "t@a/0", 17),
        ("column id widened from INT to BIGINT for id", "t@a/0", 33),
        ("column device_os STRING added for device.os", "t@a/0", 33),
        ("column device_v BIGINT added for device.v", "t@a/0", 34),
        ("column id widened from BIGINT to DECIMAL(38, 18) for id", "t@a/0", 50),
    ]
    batches = world.books.ledger.batches("numbers")
    assert [batch.schema_version for batch in batches] == sorted(batch.schema_version for batch in batches)
    assert batches[-1].schema_version == versions[-1].version


def test_a_change_that_the_target_refuses_is_not_made_and_its_values_are_rescued(world):
    world.sink.refuses = frozenset({"id"})
    drain(world)
    assert world.sink.log == ["color", "device_os", "device_v"]
    assert sum(row["id"] is None for row in world.sink.rows) == 3
    changes = [change for version in history(world.books.ledger, *WHERE) for change in version.changes]
    assert {(c.what, c.refused) for c in changes if c.refused} >= {
        ("column id widened from INT to BIGINT for id", "id stays int32")
    }
    assert not [c.what for c in changes if "widened" in c.what and not c.refused]


def test_the_next_session_goes_on_with_the_columns_of_the_last(world):
    drain(world)
    count = len(history(world.books.ledger, *WHERE))
    world.source.splits["t@a/0"] += [b'{"id":70,"color":"blue"}']
    drain(world)
    assert world.sink.rows[-1]["color"] == "blue"
    assert len(history(world.books.ledger, *WHERE)) == count


def test_the_history_is_shown_with_its_causes(world, capsys):
    world.sink.refuses = frozenset({"id"})
    drain(world)
    versions = history(world.books.ledger, *WHERE)
    show_schema(versions)
    shown = capsys.readouterr().out
    assert "3 columns as declared" in shown
    assert "column color STRING added for color" in shown
    assert "column id widened from INT to BIGINT for id: refused: id stays int32" in shown
    told = [change for version in schema_json(versions) for change in version["changes"]]
    assert [(change["split"], change["offset"]) for change in told][:2] == [("t@a/0", 17), ("t@a/0", 33)]


def test_a_target_that_is_busy_is_asked_again(world):
    world.sink.outages = 2
    drain(world)
    assert len(world.sink.rows) == 60


@pytest.mark.parametrize("step", ["sealed", "evolved", "staged", "committing", "committed"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_crash_around_a_change_converges(world, tmp_path, monkeypatch, step, number):
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", f"{step}:{number}:raise")
    world.settings["vector-assets.batch.max-rows"] = "15"
    with pytest.raises(FatalError, match="failpoint"):
        drain(world)
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    drain(world)
    (tmp_path / "other").mkdir()
    calm = LakeWorld(tmp_path / "other", MemorySource({"t@a/0": documents()}))
    drain(calm)
    assert world.sink.table().equals(calm.sink.table())


def test_a_replay_decodes_with_the_columns_that_the_batch_had(world):
    drain(world)
    before = world.sink.table()
    world.sink.rows.clear()
    world.cell.batches.clear()
    world.cell.next.clear()
    world.cell.next["t@a/0"] = 0
    with world.session() as session:
        assert all(outcome.how == "applied" for outcome in Runner(session).replay())
    assert world.sink.table().equals(before)


def test_a_sink_that_cannot_change_is_refused_at_load_and_at_start(world):
    decoder = world.pipeline().decoder
    with pytest.raises(ConfigError, match="drift mode evolve: MemorySink cannot add or widen columns"):
        check_evolvable(decoder, MemorySink, ())
    check_evolvable(decoder, LakeSink, ())
    world.sink = MemorySink(world.cell)
    with pytest.raises(ConfigError, match="drift mode evolve"):
        drain(world)


def test_the_mode_fail_names_batch_split_offset_path_found_and_wanted(world):
    world.drift = "fail"
    with pytest.raises(FatalError, match=r"batch \d+, t@a/0, offset 17: lake-json: drift: found member color"):
        drain(world)
    assert all(row["id"] is not None for row in world.sink.rows)


def test_the_mode_freeze_makes_dead_letters(world):
    world.drift = "freeze"
    drain(world)
    assert [letter.offset for letter in world.books.ledger.dead_letters.listed()] == [17, 18, 33, 34, 35, 50]
