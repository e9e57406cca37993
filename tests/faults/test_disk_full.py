"""A full disk under the archive, the ledger or Dagster's home: named, nothing partial, and the next run completes."""

import os
import random
import shutil
from contextlib import closing, suppress

import pytest

from tests.defs.project import Project
from tests.faults.car import CarJob
from tests.faults.disks import SmallFiles, Tmpfs, small
from vector_assets.engine.books_check import check_books
from vector_assets.engine.errors import DamagedError, FatalError, VectorAssetsError
from vector_assets.engine.rewrite import Selection, rewrite
from vector_assets.engine.run import Runner

pytestmark = pytest.mark.service
DISKS = pytest.mark.parametrize("kind", [Tmpfs, SmallFiles], ids=["tmpfs", "file-size-limit"])
NOISE = [random.Random(n).randbytes(700_000).replace(b"\n", b" ") for n in range(2)]
"""Records that no codec makes smaller: more than the disk holds."""


@pytest.fixture
def job(tmp_path, kafka, postgres):
    return CarJob(tmp_path, kafka, postgres, partitions=1, max_rows=10)


def produce(job, *, apart):
    """Noise in two batches, each of which fits, or in one that does not."""
    for ids, noise in [(range(20), NOISE[:1]), (range(20, 40), NOISE[1:])] if apart else [(range(40), NOISE)]:
        job.produce(ids)
        for value in noise:
            job.produce_raw([value])


def assert_whole(job):
    """Nothing partial is to be seen, and the next run is complete."""
    job.run()
    job.assert_settled(range(40))
    with job.open() as session:
        assert check_books(session.books, deep=True).findings == ()
        letters = session.ledger.dead_letters
        assert [letters.get(x.id).value for x in letters.listed()] == NOISE


@DISKS
def test_a_full_archive_is_named_and_holds_no_partial_file(job, kind):
    with small(kind, job.folder / "disk") as disk:
        job.environment["VECTOR_ASSETS_ARCHIVE"] = str(disk.folder / "archive")
        produce(job, apart=False)
        with pytest.raises(FatalError, match=rf"archive: cannot write {disk.folder}/archive/cars/.*\.parquet: E\w+"):
            job.run()
        assert not list(disk.folder.rglob("*.tmp"))
        with job.open() as session:
            assert check_books(session.books, deep=True).findings == ()
        disk.grow()
        assert_whole(job)


@DISKS
def test_a_full_ledger_is_named_and_keeps_its_books(job, kind):
    with small(kind, job.folder / "disk") as disk:
        job.environment["VECTOR_ASSETS_LEDGER"] = str(disk.folder / "ledger.db")
        produce(job, apart=True)
        with pytest.raises(VectorAssetsError, match=rf"ledger {disk.folder}/ledger\.db: .*(full|I/O)"):
            job.run()
        disk.grow()
        with job.open() as session:
            assert check_books(session.books, deep=True).findings == ()
            assert session.ledger.dead_letters.listed() == []
        assert_whole(job)


def test_a_full_dagster_home_fails_the_run_and_the_next_one_completes(tmp_path, kafka, postgres):
    with small(Tmpfs, tmp_path / "disk") as disk:
        disk.grow()
        project = Project(tmp_path, kafka, postgres)
        shutil.move(tmp_path / "dagster_home", disk.folder / "dagster_home")
        project.variables["DAGSTER_HOME"] = str(disk.folder / "dagster_home")
        project.produce(range(50))
        assert project.materialize().returncode == 0
        project.produce(range(50, 100))
        ballast = disk.folder / "ballast"
        fill(ballast)
        done = project.materialize()
        assert done.returncode != 0
        assert any(words in done.stderr for words in ("disk is full", "disk I/O error", "No space left"))
        assert f"file: {disk.folder}/dagster_home/" in done.stderr, done.stderr
        with closing(project.books()) as books:
            assert check_books(books, deep=True).findings == ()
        ballast.unlink()
        done = project.materialize()
        assert done.returncode == 0, done.stderr
        assert project.ids() == list(range(100))
        with closing(project.books()) as books:
            assert check_books(books, deep=True).findings == ()


def fill(ballast):
    """Take what is left of a disk."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def flip(path):
    """One bit of the file is another."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_in_the_archive_is_refused_by_name_wherever_it_is_read(job):
    job.produce(range(120))
    job.run()
    file = next((job.folder / "home" / "archive" / "cars").glob("*/0000000002.parquet"))
    kept = job.folder / "kept.parquet"
    shutil.copy(file, kept)
    flip(file)
    with job.open() as session:  # the target has every batch: the file is not read
        assert {outcome.how for outcome in Runner(session).replay()} == {"found"}
    job.execute("TRUNCATE vector_test.car_info; DELETE FROM vector_assets.batches; DELETE FROM vector_assets.positions")
    code, output = job.run_apart(command="replay")
    assert code == 1
    assert f"archive: {file} refused: found sha256" in output
    first = job.rows()
    assert 0 < len(first) < 120
    with job.open() as session:
        assert check_books(session.books).findings == ()
        (finding,) = check_books(session.books, deep=True).findings
        assert finding[:2] == ("cars", 2)
        assert str(file) in finding[2]
    os.replace(kept, file)
    with job.open() as session:
        assert "applied" in {outcome.how for outcome in Runner(session).replay()}
    job.assert_settled(range(120))


def test_a_rewrite_that_meets_a_flipped_bit_is_refused_by_name_and_stands_in_nobodys_way(job):
    job.produce(range(60))
    job.run()
    file = next((job.folder / "home" / "archive" / "cars").glob("*/0000000002.parquet"))
    flip(file)
    with job.open() as session, pytest.raises(DamagedError, match=rf"archive: {file} refused: found sha256"):
        list(rewrite(Runner(session), Selection(again=True)))
    job.produce(range(60, 70))
    job.run()
    job.assert_settled(range(70))
    flip(file)
    with job.open() as session:
        assert list(rewrite(Runner(session), Selection(again=True)))
    job.assert_settled(range(70))


def test_a_flipped_bit_stops_the_resume_of_a_sealed_batch(job):
    job.produce(range(60))
    job.run_apart("staged:1")
    file = next((job.folder / "home" / "archive" / "cars").glob("*/0000000001.parquet"))
    flip(file)
    with pytest.raises(FatalError, match=rf"archive: {file} refused"):
        job.run()
    assert job.rows() == []
    flip(file)
    job.run()
    job.assert_settled(range(60))
