"""Benchmarks make records that the engine takes, and ask of Flink what they ask of us."""

import re

import numpy as np
import pytest

from bench import flink_cluster, formats, kafka_adbpg, kafka_iceberg, kafka_paimon, landed
from bench.flink_cluster import Job, Sample
from vector_assets.engine.core import RAW_SCHEMA


@pytest.mark.parametrize("name", formats.CASES)
def test_every_case_is_read_by_ours_and_row_by_row_alike(name: str) -> None:
    case = formats.CASES[name](200)
    (batch,) = formats.raw_batches(case.records)
    decoded = case.decoder.decode(batch)
    assert decoded.rejected.num_rows == decoded.nulled == decoded.filtered == 0
    expected = case.baseline(case.records)
    assert decoded.rows.select(expected.column_names).to_pylist() == expected.to_pylist()


def test_the_landed_records_are_raw_records_of_today() -> None:
    made = landed._records(0, 10, np.random.default_rng(1))
    assert made.schema == RAW_SCHEMA
    assert made.num_rows == 10


BESIDE = (kafka_adbpg, kafka_iceberg, kafka_paimon)
PLACES = {
    "folder": "/lake", "table": "t1", "columns": kafka_iceberg.COLUMNS, "brokers": "b:1", "topic": "records",
    "address": "p:1", "database": "d", "user": "u", "password": "p", "memory": "1 GB", "batch": 1, "options": "",
    "conflict": "ignore", "settings": "", "key": "",
}  # fmt: skip


@pytest.mark.parametrize("bench", BESIDE, ids=lambda bench: bench.__name__)
def test_flink_reads_the_records_that_we_read(bench) -> None:
    ours = flink_cluster.statements(bench.SCRIPT.format(**PLACES))
    script = bench.FLINK % {"key": "", "bucket": -1} if bench is kafka_paimon else bench.FLINK
    flinks = flink_cluster.statements(script.format(**PLACES))
    assert flinks[-1].startswith("INSERT INTO ")
    assert flinks[-1].endswith(" SELECT * FROM records")
    assert all(each.split()[0] in {"SET", "CREATE", "INSERT"} for each in flinks)
    records = [next(each for each in script if each.startswith("CREATE TABLE records")) for script in (ours, flinks)]
    bound = ", 'scan.bounded.mode' = 'latest-offset'"
    assert bound in records[1]
    assert records[0] == records[1].replace(bound, "")


def test_flink_has_the_columns_that_we_have() -> None:
    (ours,) = re.findall(r"CREATE TABLE cars \((.*?)\) WITH", kafka_adbpg.SCRIPT, re.DOTALL)
    (flinks,) = re.findall(r"CREATE TABLE cars \((.*?)\{key\}\) WITH", kafka_adbpg.FLINK, re.DOTALL)
    assert ours == flinks


@pytest.mark.parametrize("bench", BESIDE, ids=lambda bench: bench.__name__)
def test_flink_runs_only_where_it_is_asked_for(bench) -> None:
    assert bench._arguments([]).beside is None
    asked = bench._arguments(["--beside", "flink", "--turns", "2"])
    assert (asked.beside, asked.turns) == ("flink", 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--beside", "spark"], "invalid choice: 'spark'"),
        (["--beside", "flink", "--turns", "0"], "--turns"),
        (["--beside", "flink", "--partition", "day(ts)"], "partition"),
    ],
    ids=["unknown peer", "no turn", "partition transforms"],
)
def test_what_flink_cannot_do_is_refused_before_anything_starts(arguments, said, capsys) -> None:
    with pytest.raises(SystemExit):
        kafka_iceberg._arguments(arguments)
    assert said in capsys.readouterr().err


def test_flinks_steady_part_begins_after_the_warm_up_and_ends_with_the_last_record() -> None:
    slow = Job(0, 500, 9_000, (Sample(1_000, 0), Sample(2_000, 99), Sample(2_500, 200), Sample(6_500, 1_000)), 9.0, 900)
    fast = Job(0, 500, 4_500, (Sample(2_000, 200), Sample(4_000, 1_000), Sample(4_200, 1_000)), 7.0, 1100)
    assert slow.steady(1_000) == 200
    assert flink_cluster.figures([slow, fast], 1_000, ours=800) == {
        "flink_rows_per_s": 400,
        "flink_whole_rows_per_s": 250,
        "flink_wall_s": 4.5,
        "flink_cpu_s": 7.0,
        "flink_peak_rss_mb": 1100,
        "flink_turns": [200, 400],
        "ratio_to_flink": 2.0,
    }


def test_a_run_too_short_for_a_steady_part_counts_from_its_first_task_to_its_end() -> None:
    assert Job(0, 500, 1_500, (Sample(1_000, 0),), 1.0, 1).steady(1_000) == 1_000
    assert Job(0, 500, 1_500, (Sample(1_000, 0), Sample(1_400, 1_000)), 1.0, 1).steady(1_000) == 1_000


def test_tables_that_differ_end_the_benchmark() -> None:
    flink_cluster.must_agree((2, 7), (2, 7))
    with pytest.raises(SystemExit, match="the tables differ"):
        flink_cluster.must_agree((2, 7), (2, 8))
