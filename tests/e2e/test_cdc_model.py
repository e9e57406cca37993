"""Random changes of a MySQL table end as the same rows in the target, however its columns change on the way.

`CDC_MODEL_CHANGES=10000 python -m pytest -o faulthandler_timeout=0 tests/e2e/test_cdc_model.py` makes it long.
"""

import os
import random
import signal

import pytest

from tests.e2e.cdc_model import VECTOR, Model, assert_equal
from tests.e2e.test_cdc_columns import MaxComputeTarget, PostgresTarget
from tests.faults.captured import CapturedJob, Spec, declared
from tests.sinks.milvus_target import make_target  # noqa: F401
from vector_assets.engine import env

pytestmark = pytest.mark.service

CHANGES = int(os.environ.get("CDC_MODEL_CHANGES", "120"))
CHUNKS = {"scan.incremental.snapshot.chunk.size": "13"}


def play(model, job, changes):
    """Changes with reads in between: some of them killed, wherever they are."""
    chance = random.Random(5)
    kills = 0
    for number in range(changes):
        model.step()
        if chance.random() < 0.01 or number in (20, 60):
            step = chance.choice([*env.STEPS, *env.RARE_STEPS, *env.RARE_STEPS])
            kills += job.run_apart(f"{step}:{chance.randint(1, 3)}") == -signal.SIGKILL
        elif chance.random() < 0.02:
            job.run()
    job.run()
    return kills


def test_postgres_ends_as_the_table(tmp_path, mysql, postgres):
    model = Model(mysql.sql, 1)
    for _ in range(60):
        model.step()
    columns = ", ".join(f"{name} {_of_postgres(kind)}" for name, kind in model.columns.items())
    found = PostgresTarget(
        tmp_path, mysql, postgres, f"CREATE TABLE t (id int PRIMARY KEY, {columns})", behavior="evolve", options=CHUNKS
    )
    kills = play(model, found.job, CHANGES)
    assert kills
    ours, theirs = found.as_source()
    assert_equal(ours, theirs, model)
    assert sorted(name for name, _ in found.columns()) == sorted(["id", *model.columns])
    assert found.job.run() == []


def test_a_delta_table_ends_as_the_table(tmp_path, mysql, maxcompute):
    model = Model(mysql.sql, 2)
    for _ in range(60):
        model.step()
    columns = ", ".join(f"{name} {_of_maxcompute(kind)}" for name, kind in model.columns.items())
    found = MaxComputeTarget(
        tmp_path, mysql, maxcompute, f"id int NOT NULL, {columns}", behavior="evolve", options=CHUNKS
    )
    kills = play(model, found.job, CHANGES)
    assert kills
    ours, theirs = found.as_source()
    assert_equal(ours, theirs, model)
    assert sorted(name for name, _ in found.columns()) == sorted(["id", *model.columns])


def test_a_collection_ends_as_the_table_without_ddl(tmp_path, mysql, make_target):  # noqa: F811
    fields = {
        "id": ("INT64", {}), "c0": ("INT32", {"nullable": True}), "c1": ("VARCHAR", {"max_length": 90}),
        "vec": ("FLOAT_VECTOR", {"dim": 3}),
    }  # fmt: skip
    target = make_target(fields)
    model = Model(mysql.sql, 3, ddl=0, nulls=0, columns={"c0": "INT", "c1": "VARCHAR(30)", "vec": VECTOR})
    for _ in range(60):
        model.step()
    source = mysql.options("t", **CHUNKS)
    sink = {
        "connector": "milvus", "endpoint": target.host, "port": str(target.port), "collectionName": target.collection,
    }  # fmt: skip
    job = CapturedJob(tmp_path, Spec(source, "milvus", sink, declared(source), behavior="lenient"))
    assert play(model, job, CHANGES)
    ours = sorted((row["id"], row["c0"], row["c1"], list(row["vec"])) for row in target.rows())
    theirs = mysql.sql("SELECT id, c0, c1, vec FROM t ORDER BY id")
    assert ours == [(*row[:3], [float(part) for part in row[3].strip("{}").split(",")]) for row in theirs]


def _of_postgres(kind):
    return {"DOUBLE": "double precision"}.get(kind, kind)


def _of_maxcompute(kind):
    return kind
