"""STATEMENT SET: several INSERTs, each a pipeline of its own."""

from pathlib import Path

import pytest

from tests.declare.scripts import INSERT, SINK, SOURCE, compiled
from vector_assets.engine import env
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

VANS = SINK.replace("dst", "vans").replace("'cars'", "'vans'")
TABLES = SOURCE + SINK + VANS
INSERTS = f"{INSERT}-- only the vans\nINSERT INTO vans SELECT id, name, price FROM src WHERE price > 3;\n"


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("EXECUTE STATEMENT SET BEGIN\n", "END;"),
        ("EXECUTE STATEMENT SET\nBEGIN\n", "END"),
        ("execute statement set begin ", "end;"),
        ("BEGIN STATEMENT SET;\n", "END;"),
    ],
    ids=["execute", "two lines", "lower case", "begin"],
)
def test_every_insert_of_a_set_is_a_pipeline_named_after_its_sink(opening: str, closing: str) -> None:
    cars, vans = compiled(f"{TABLES}{opening}{INSERTS}{closing}")
    assert (cars.name, vans.name) == ("cars_dst", "cars_vans")
    assert (cars.target, vans.target) == (cars.target.replace("vans", "cars"), cars.target.replace("cars", "vans"))
    assert cars.source_table == vans.source_table
    assert vans.description == "only the vans"
    assert vans.transform_text.endswith('WHERE ("price" > 3)')


def test_name_of_a_pipeline_stays_when_a_set_gets_another_insert() -> None:
    (alone,) = compiled(f"{TABLES}BEGIN STATEMENT SET; {INSERT}END;")
    assert alone.name == compiled(f"{TABLES}BEGIN STATEMENT SET; {INSERTS}END;")[0].name


def test_name_that_is_set_before_a_set_stands_for_the_file_s() -> None:
    script = f"SET 'pipeline.name' = 'fleet';\n{TABLES}BEGIN STATEMENT SET; {INSERTS}END;"
    assert [pipeline.name for pipeline in compiled(script)] == ["fleet_dst", "fleet_vans"]


def test_settings_before_a_set_hold_for_all_of_it() -> None:
    script = f"SET 'vector-assets.batch.max-rows' = '7';\n{TABLES}BEGIN STATEMENT SET; {INSERTS}END;"
    assert [pipeline.settings.max_rows for pipeline in compiled(script)] == [7, 7]


def test_sets_and_plain_inserts_stand_in_one_script() -> None:
    plain = SINK.replace("dst", "other").replace("'cars'", "'other'")
    script = f"{TABLES}{plain}BEGIN STATEMENT SET; {INSERTS}END;\n{INSERT.replace('dst', 'other')}"
    assert [pipeline.name for pipeline in compiled(script)] == ["cars_dst", "cars_vans", "cars"]


def test_every_pipeline_of_a_set_has_books_of_its_own(tmp_path: Path) -> None:
    script = """
    CREATE TABLE gen (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '7',
      'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '7');
    CREATE TABLE low (id BIGINT) WITH ('connector' = 'blackhole');
    CREATE TABLE high (id BIGINT) WITH ('connector' = 'blackhole');
    EXECUTE STATEMENT SET BEGIN
      INSERT INTO low SELECT id FROM gen WHERE id < 3;
      INSERT INTO high SELECT id FROM gen WHERE id >= 3;
    END;
    """
    found = {}
    with env.overridden(VECTOR_ASSETS_HOME=str(tmp_path)):
        for pipeline in compiled(script, "parts.sql"):
            with Session(pipeline, Books.open()) as session:
                (outcome,) = Runner(session).catch_up()
                found[pipeline.name] = (outcome.batch.seq, outcome.batch.counts.written, outcome.batch.counts.filtered)
                assert session.ledger.position(pipeline.name, pipeline.target)
    assert found == {"parts_low": (1, 2, 5), "parts_high": (1, 5, 2)}
