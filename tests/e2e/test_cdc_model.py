"""Random changes of a MySQL table end as the same rows in the target, however its columns change on the way.

`CDC_MODEL_CHANGES=10000` makes it long.
"""

import os
import random
import signal

import pytest

from tests.e2e.cdc_model import Model, assert_equal
from tests.e2e.test_cdc_columns import MaxComputeTarget, PostgresTarget
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


def _of_postgres(kind):
    return {"DOUBLE": "double precision"}.get(kind, kind)


def _of_maxcompute(kind):
    return kind
