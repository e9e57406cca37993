import errno
import hashlib
import itertools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vector_assets.engine.archive import Archive, ArchiveFile, quoted
from vector_assets.engine.core import RAW_SCHEMA, no_rejects, rejects
from vector_assets.engine.errors import FatalError, FencedError
from vector_assets.engine.ledger import Ledger

HOUR = "2026-11-21-11:00"


def records(count: int = 3) -> pa.Table:
    values = {
        "key": [None, b"k", b"\xff\x00"],
        "value": [b"1\ta", None, b""],
        "headers": [None, [], [{"key": "trace", "value": b"\x01"}, {"key": "empty", "value": None}]],
        "timestamp": [1_800_000_000_123, None, -1],
        "split": [0, 0, 1],
        "offset": [7, 9, 2**62],
        "leader_epoch": [0, None, 3],
        "timestamp_type": [0, 1, None],
    }
    return pa.table(
        {name: list(itertools.islice(itertools.cycle(of), count)) for name, of in values.items()}, RAW_SCHEMA
    )


def noise(size: int) -> pa.Table:
    """One record that no codec makes smaller."""
    value = np.random.default_rng(0).bytes(size)
    return pa.table(
        {n: [value if n == "value" else 0 if n in {"split", "offset"} else None] for n in RAW_SCHEMA.names}, RAW_SCHEMA
    )


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def names_below(archive: Archive) -> list[str]:
    """Every file but the list of hashes."""
    files = (path for path in archive.root.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    return sorted(path.relative_to(archive.root).as_posix() for path in files)


def write_one(archive: Archive, raw: pa.Table | None = None, seq: int = 1) -> ArchiveFile:
    return archive.write("cars", HOUR, seq, records() if raw is None else raw)


def test_a_worker_that_lost_its_lease_replaces_no_file(archive: Archive, tmp_path: Path) -> None:
    """It read the batch before it was stopped, and wakes up after the next worker has sealed it."""
    ledger = Ledger(tmp_path / "ledger.db")
    with ledger.leases.held("cars", "target", ttl=60, wait=0) as lease:
        kept = archive.guarded(partial(ledger.fenced, lease))
        gone = archive.guarded(partial(ledger.fenced, replace(lease, owner="another", fence=lease.fence - 1)))
        file = kept.write("cars", HOUR, 1, records(3))
        rejected = rejects([0], "decode", "bad")
        kept.write_rejects(file, rejected, {})
        for late in (
            lambda: gone.write("cars", HOUR, 1, records(5)),
            lambda: gone.put(("cars", HOUR, "0000000001.keys.parquet"), records(1), {}),
            lambda: gone.write_rejects(file, rejects([0, 1], "decode", "bad"), {}),
            lambda: gone.write_rejects(file, no_rejects(), {}),
        ):
            with pytest.raises(FencedError, match="is gone"):
                late()
    assert archive.read(file).equals(records(3))
    found = archive.rejects_of(file)
    assert found is not None
    assert found[0].equals(rejected)
    assert names_below(archive) == [file.path, file.path.replace(".parquet", ".rejects.parquet")]
    assert archive.root.joinpath(file.path).with_name("SHA256SUMS").read_text().count("\n") == 2
    ledger.close()


@pytest.mark.parametrize("count", [0, 1, 3, 10_000])
def test_records_come_back_as_they_were(archive: Archive, count: int) -> None:
    raw = records(count)
    assert archive.read(write_one(archive, raw)).equals(raw, check_metadata=True)


def test_slices_and_chunks_come_back_as_one_table(archive: Archive) -> None:
    raw = pa.concat_tables([records(10).slice(3, 4), records(0), records(5).slice(1)])
    assert archive.read(write_one(archive, raw)).equals(raw)


def test_rows_of_a_table_source_are_archived_too(archive: Archive) -> None:
    rows = pa.table({"offset": [1, 2], "split": ["a", None], "v": pa.array([[1.0], []], pa.list_(pa.float32()))})
    assert archive.read(write_one(archive, rows)).equals(rows)


def test_a_file_is_named_after_its_batch_and_described_as_it_is_on_disk(archive: Archive) -> None:
    file = write_one(archive, seq=42)
    data = (archive.root / file.path).read_bytes()
    assert file == ArchiveFile(f"cars/{HOUR}/0000000042.parquet", hashlib.sha256(data).hexdigest(), 3, len(data))
    assert names_below(archive) == [file.path]


def test_the_same_batch_again_replaces_its_file(archive: Archive) -> None:
    first, second = write_one(archive, records(2)), write_one(archive, records(3))
    assert names_below(archive) == [first.path]
    assert archive.read(second).num_rows == 3
    with pytest.raises(FatalError, match=f"refused: found sha256 {second.sha256} .* wanted {first.sha256}"):
        archive.read(first)


@pytest.mark.parametrize("where", [0, 0.5, -1], ids=["first byte", "middle", "last byte"])
def test_one_flipped_bit_refuses_the_file(archive: Archive, where: float) -> None:
    file = write_one(archive)
    path = archive.root / file.path
    data = bytearray(path.read_bytes())
    data[int(where * len(data)) if where != -1 else -1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FatalError, match=r"refused: found sha256 .*, wanted ") as caught:
        archive.read(file)
    assert str(path) in str(caught.value)
    assert file.sha256 in str(caught.value)


@pytest.mark.parametrize("change", [b"", b"PAR1", b"x" * 100], ids=["empty", "magic only", "other bytes"])
def test_another_content_refuses_the_file(archive: Archive, change: bytes) -> None:
    file = write_one(archive)
    (archive.root / file.path).write_bytes(change)
    with pytest.raises(FatalError, match=f"refused: found .* \\({len(change)} bytes\\)"):
        archive.read(file)


def test_a_file_that_is_gone_is_a_named_error(archive: Archive) -> None:
    file = write_one(archive)
    (archive.root / file.path).unlink()
    with pytest.raises(FatalError, match=f"{archive.root / file.path} is missing"):
        archive.read(file)


def test_what_cannot_be_read_is_a_named_error(archive: Archive) -> None:
    (archive.root / "folder").mkdir(parents=True)
    with pytest.raises(FatalError, match=r"cannot read .*folder: EISDIR"):
        archive.read(ArchiveFile("folder", "", 0, 0))


def test_another_format_version_is_refused(archive: Archive) -> None:
    file = write_one(archive)
    path = archive.root / file.path
    pq.write_table(records().replace_schema_metadata({"vector_assets.format": "2"}), path)
    newer = replace(file, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(FatalError, match="found format version 2, wanted 1"):
        archive.read(newer)


HOSTILE = [
    "..",
    ".",
    "",
    "../../etc",
    "/etc/passwd",
    "a/b",
    "a\\b",
    ".hidden",
    "a\0b",
    "%2E%2E",
    "naïve",
    "a b",
    "~",
    "%",
    "\0",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_out_of_the_root(archive: Archive, name: str) -> None:
    file = archive.write(name, name, 1, records())
    path = (archive.root / file.path).resolve()
    assert path.parent.parent.parent == archive.root.resolve()
    assert archive.read(file).num_rows == 3


def test_different_names_stay_different() -> None:
    assert len({quoted(name) for name in HOSTILE}) == len(HOSTILE)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_is_one_visible_part_of_a_path(name: str) -> None:
    part = quoted(name)
    assert part
    assert "/" not in part
    assert "\0" not in part
    assert not part.startswith(".")


@pytest.mark.parametrize("path", ["../outside.parquet", "/etc/passwd", "a/../../b"])
def test_a_ledger_cannot_point_out_of_the_root(archive: Archive, path: str) -> None:
    with pytest.raises(FatalError, match="not a path below"):
        archive.read(ArchiveFile(path, "", 0, 0))


@contextmanager
def small_files(folder: Path) -> Iterator[Path]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


LIMITS = [pytest.param(small_files, "EFBIG", id="file size limit")]
if os.geteuid() == 0:
    LIMITS.append(pytest.param(small_disk, "ENOSPC", id="full disk"))


@pytest.mark.parametrize(("limited", "name"), LIMITS)
def test_a_full_disk_leaves_no_partial_file_and_the_next_try_succeeds(tmp_path: Path, limited, name) -> None:
    with limited(tmp_path / "root") as root:
        archive = Archive(root)
        kept = write_one(archive, seq=1)
        with pytest.raises(FatalError, match=rf"cannot write {root}/cars/.*0000000002.parquet: {name} \(errno \d+\)"):
            write_one(archive, noise(300_000), seq=2)
        assert names_below(archive) == [kept.path]
        assert archive.read(write_one(archive, seq=2)).num_rows == 3


@pytest.mark.parametrize("failing", ["file", "folder"])
def test_a_failed_fsync_is_fatal_and_never_tried_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    kept = write_one(archive, records(1))
    asked = []

    def fsync(fd: int) -> None:
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"
        asked.append(kind)
        if kind == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(FatalError, match=r"cannot write .*0000000001.parquet: EIO \(errno 5\)"):
        write_one(archive, records(3))
    assert asked.count(failing) == 1
    assert names_below(archive) == [kept.path]
    if failing == "file":
        assert archive.read(kept).num_rows == 1


def test_a_failed_rename_leaves_the_old_file(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = write_one(archive, records(1))

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(FatalError, match="EROFS"):
        write_one(archive, records(3))
    assert names_below(archive) == [kept.path]
    assert archive.read(kept).num_rows == 1


def test_a_root_that_is_a_file_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("")
    with pytest.raises(FatalError, match=f"cannot write {tmp_path / 'archive'}/cars"):
        write_one(Archive(tmp_path / "archive"))


def test_a_file_is_on_disk_before_it_gets_its_name_and_the_name_after(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_one(archive, seq=1)
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def noted_fsync(fd: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
        fsync(fd)

    def noted_rename(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_rename)
    write_one(archive, seq=2)
    assert done == ["file", "file", "rename", "folder"], "the second is the list of hashes"
    done.clear()
    archive.write("boats", HOUR, 1, records())
    assert done == ["folder", "folder", "file", "file", "rename", "folder"]


DYING = """
import os, signal, sys
from pathlib import Path
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import RAW_SCHEMA
os.fsync = lambda fd: os.path.isdir(f"/proc/self/fd/{fd}") or os.kill(os.getpid(), signal.SIGKILL)
Archive(Path(sys.argv[1])).write("cars", "now", 1, RAW_SCHEMA.empty_table())
"""


def test_a_process_killed_while_writing_leaves_only_what_a_sweep_removes(archive: Archive) -> None:
    died = subprocess.run([sys.executable, "-c", DYING, archive.root], check=False, cwd=Path(__file__).parents[2])
    assert died.returncode == -signal.SIGKILL
    (left,) = names_below(archive)
    assert left.endswith(".tmp")
    assert list(archive.files("cars")) == []
    assert archive.sweep(older_than_seconds=3600) == []
    assert archive.sweep(older_than_seconds=0) == [left]
    assert names_below(archive) == []


def test_a_sweep_goes_by_age_and_leaves_what_is_not_ours(tmp_path: Path) -> None:
    archive = Archive(tmp_path, clock=lambda: 1_000_000.0)
    folder = tmp_path / "cars" / HOUR
    folder.mkdir(parents=True)
    names = {
        ".0000000001.parquet.00112233445566ff.tmp": 900_000,
        ".0000000002.keys.parquet.00112233445566ff.tmp": 990_000,
        ".0000000003.parquet.00112233445566ff.tmp": 999_999,
        "notes.tmp": 1,
        ".notes.tmp": 1,
        "0000000004.parquet": 1,
    }
    for name, modified in names.items():
        (folder / name).write_text("")
        os.utime(folder / name, (modified, modified))
    assert sorted(archive.sweep(3600)) == [f"cars/{HOUR}/{name}" for name in list(names)[:2]]
    assert {path.name for path in folder.iterdir()} == set(list(names)[2:])


def test_a_file_says_which_batch_it_is(archive: Archive) -> None:
    file = archive.write("cars", HOUR, 7, records(), {"span": '[["t/0",1,2]]', "seq": "ignored"})
    assert archive.manifest(file) == {"pipeline": "cars", "hour": HOUR, "seq": "7", "span": '[["t/0",1,2]]'}


def test_a_lost_ledger_finds_its_files_again_in_order(archive: Archive) -> None:
    written = [
        archive.write("cars", hour, seq, records(count))
        for seq, hour, count in [(10, "b", 1), (9, "a", 0), (11, "a", 3), (10**10, "a", 2)]
    ]
    archive.write("cars2", "a", 1, records())
    archive.put(("cars", "a", "0000000009.keys.parquet"), records(), {})
    assert list(archive.files("cars")) == [written[1], written[0], written[2], written[3]]
    assert list(archive.files("unknown")) == []


def test_a_file_that_is_not_ours_stops_the_search(archive: Archive) -> None:
    folder = archive.root / "cars" / HOUR
    folder.mkdir(parents=True)
    (folder / "0000000001.parquet").write_bytes(b"nonsense")
    with pytest.raises(FatalError, match="not a Parquet file"):
        list(archive.files("cars"))


def test_the_hashes_of_a_folder_are_as_sha256sum_reads_them(archive: Archive) -> None:
    files = [write_one(archive, seq=seq) for seq in (1, 2)]
    folder = (archive.root / files[0].path).parent
    run = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=folder, check=False, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == ["0000000001.parquet: OK", "0000000002.parquet: OK"]


@pytest.mark.parametrize("place", [10, -40, -9, -1], ids=["head", "footer", "length", "magic"])
def test_a_flipped_bit_anywhere_is_found_without_a_ledger(archive: Archive, place: int) -> None:
    path = archive.root / write_one(archive).path
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FatalError, match=f"archive: {path} refused"):
        list(archive.files("cars"))


def test_a_batch_written_twice_is_what_either_writing_made_of_it(archive: Archive) -> None:
    write_one(archive)
    again = write_one(archive, records().slice(1))
    assert [file.sha256 for file in archive.files("cars")] == [again.sha256]
