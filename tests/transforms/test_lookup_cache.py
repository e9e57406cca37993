"""The cache of a dimension table: when it is loaded, where it lies, and what happens when it cannot be."""

import multiprocessing
from pathlib import Path

import pyarrow as pa
import pytest

from tests.transforms.dims import START, Dimension, files
from vector_assets.engine.errors import ConfigError, FatalError, PlanError, TransientError, UnavailableError
from vector_assets.engine.lookup import parse_blackouts
from vector_assets.transforms.lookup_cache import process_tree


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    return tmp_path


def rows(*values: int) -> pa.Table:
    return pa.table({"k": pa.array(values, pa.int32()), "v": [f"v{value}" for value in values]})


def keys(loaded) -> list[int]:
    return loaded.rows["k"].to_pylist()


def test_a_second_process_of_the_tree_asks_nobody_and_maps_the_same_file() -> None:
    dim = Dimension(rows(1, 2))
    first = dim.cache().current()
    again = dim.cache().current()
    assert (dim.looks, dim.loads) == (2, 1)  # before and after the load
    assert keys(again) == [1, 2]
    assert again.version == first.version == f"ds=1@2027-01-15T07:00:00Z+{first.stored.sha256[:8]}"


def test_another_tree_looks_once_and_loads_only_what_has_changed() -> None:
    dim = Dimension(rows(1, 2))
    dim.cache().current()
    dim.cache(tree="a restart").current()
    assert (dim.looks, dim.loads) == (3, 1)
    dim.put(rows(3))
    assert keys(dim.cache(tree="a restart").current()) == [1, 2]
    assert keys(dim.cache(tree="one more").current()) == [3]
    assert dim.loads == 2


def test_without_a_ttl_a_running_process_never_looks_again() -> None:
    dim = Dimension(rows(1))
    cache = dim.cache()
    cache.current()
    dim.put(rows(2))
    dim.now += 10**9
    assert keys(cache.current()) == [1]


def test_after_the_ttl_the_newest_partition_is_loaded_and_others_share_it() -> None:
    dim = Dimension(rows(1))
    mine, other = (dim.cache(ttl_ms=60_000) for _ in range(2))
    assert keys(mine.current()) == keys(other.current()) == [1]
    dim.put(rows(2), name="ds=2")
    dim.now += 59.9
    assert keys(mine.current()) == [1]
    dim.now += 0.1
    assert keys(mine.current()) == [2]
    looks = dim.looks
    assert keys(other.current()) == [2]
    assert (dim.looks, dim.loads) == (looks, 2)
    assert other.current().version.startswith("ds=2@")


def test_after_the_ttl_an_unchanged_table_is_confirmed_not_loaded() -> None:
    dim = Dimension(rows(1))
    cache = dim.cache(ttl_ms=1000)
    cache.current()
    for _ in range(3):
        dim.now += 2
        cache.current()
    assert (dim.looks, dim.loads) == (5, 1)
    dim.now += 0.5
    cache.current()
    assert dim.looks == 5


def test_in_a_blackout_nothing_is_loaded_again_but_the_first_load_is() -> None:
    dim = Dimension(rows(1))
    cache = dim.cache(ttl_ms=1000, blackouts=parse_blackouts("2027-01-15 08:00 -> 2027-01-15 09:00"))
    assert START == 1_800_000_000  # 2027-01-15 08:00
    assert keys(cache.current()) == [1]
    dim.put(rows(2))
    dim.now += 3599
    assert keys(cache.current()) == [1]
    assert dim.looks == 2
    dim.now += 1
    assert keys(cache.current()) == [2]


BLACKOUTS = {
    "one": ("2017-10-24 14:00 -> 2017-10-24 15:00", "2017-10-24 14:59:59", "2017-10-24 15:00:00"),
    "the second of two": (
        "2017-10-24 14:00 -> 2017-10-24 15:00, 2017-11-10 23:30 -> 2017-11-11 08:00",
        "2017-11-11 00:00:00", "2017-11-11 08:00:00",
    ),
    "every day": ("14:00 -> 15:00", "2027-03-01 14:30:00", "2027-03-01 13:59:59"),
    "every day over midnight": ("23:30->08:00", "2027-03-01 07:59:59", "2027-03-01 08:00:00"),
    "before midnight": ("23:30 -> 08:00:30", "2027-03-01 23:30:00", "2027-03-01 23:29:59"),
}  # fmt: skip


@pytest.mark.parametrize("case", BLACKOUTS)
def test_periods_of_the_black_list(case: str) -> None:
    text, inside, outside = BLACKOUTS[case]
    policy = Dimension(rows(1)).cache(blackouts=parse_blackouts(text)).policy
    assert policy.is_dark(_seconds(inside))
    assert not policy.is_dark(_seconds(outside))


def _seconds(text: str) -> float:
    return pa.scalar(text).cast(pa.timestamp("s")).value


@pytest.mark.parametrize(
    "text",
    ["", "14:00", "2017-10-24 14:00", "14:00 -> 2017-10-24 15:00", "25:00 -> 26:00", "15:00 -> 15:00",
     "2017-10-24 15:00 -> 2017-10-24 14:00", "2017-13-24 15:00 -> 2017-14-24 14:00", "14:00 -> 15:00,"],
)  # fmt: skip
def test_a_period_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"want '2017-10-24 14:00 ->|ends before it begins"):
        parse_blackouts(text)


def test_the_first_load_is_tried_as_often_as_the_options_say_and_then_fails_the_run() -> None:
    dim = Dimension(rows(1), fails=[TransientError("429"), UnavailableError("nobody answers")])
    assert keys(dim.cache(retries=2).current()) == [1]
    assert dim.slept == [0.2, 0.4]
    broken = Dimension(rows(1), fails=[TransientError("500")] * 9)
    with pytest.raises(FatalError, match=r"could not be loaded in 3 attempts \(maxLoadRetries = 2\): 500") as caught:
        broken.cache(retries=2, identity=("other",)).current()
    assert not isinstance(caught.value, TransientError)
    assert len(broken.fails) == 6


def test_a_reload_that_fails_keeps_the_rows_and_is_tried_again_a_minute_later(caplog) -> None:
    dim = Dimension(rows(1))
    cache = dim.cache(ttl_ms=1000)
    cache.current()
    dim.put(rows(2))
    dim.now += 2
    dim.fails = [TransientError("500")]
    assert keys(cache.current()) == [1]
    assert "going on with version ds=1@" in caplog.text
    dim.now += 30
    assert keys(cache.current()) == [1]
    dim.now += 31
    assert keys(cache.current()) == [2]


def test_a_wrong_key_pair_at_a_reload_is_not_passed_over() -> None:
    dim = Dimension(rows(1))
    cache = dim.cache(ttl_ms=1000)
    cache.current()
    dim.now += 2
    dim.fails = [ConfigError("check accessKey")]
    with pytest.raises(ConfigError):
        cache.current()


def test_rows_that_change_while_they_are_loaded_are_loaded_again() -> None:
    class Moving(Dimension):
        def load(self, snapshot):
            yield from super().load(snapshot)
            if self.loads == 1:
                self.put(rows(7))

    dim = Moving(rows(1))
    assert keys(dim.cache().current()) == [7]
    assert dim.loads == 2


def test_a_change_within_the_second_of_the_last_one_is_seen() -> None:
    dim = Dimension(rows(1))
    dim.now = START - 3600 + 0.5
    cache = dim.cache(ttl_ms=1000)
    cache.current()
    dim.rows = rows(2)
    dim.now += 5
    assert keys(cache.current()) == [2]


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "counted while loading"])
def test_too_many_rows_are_the_document_s_error(counted) -> None:
    dim = Dimension(rows(*range(101)), counted=counted)
    wanted = "Row count of table p.dim partition ds=1 exceeds maxRowCount limit"
    with pytest.raises(PlanError, match=wanted):
        dim.cache().current()
    assert dim.loads == (0 if counted else 1)
    assert keys(Dimension(rows(*range(100))).cache().current()) == list(range(100))


def test_rows_that_a_pipeline_with_a_larger_cache_loaded_are_counted_too() -> None:
    dim = Dimension(rows(1, 2, 3))
    dim.cache(max_rows=3).current()
    with pytest.raises(PlanError, match="partition ds=1 exceeds maxRowCount limit: 3 rows, cacheSize is 2"):
        dim.cache(max_rows=2).current()
    assert dim.loads == 1


def test_of_rows_with_one_primary_key_the_last_counts_and_the_others_are_counted(caplog) -> None:
    table = pa.table({"k": pa.array([1, 2, 1, None, None], pa.int32()), "v": list("abcde")})
    loaded = Dimension(table).cache(("k",)).current()
    assert loaded.rows.to_pydict() == {"k": [2, 1, None, None], "v": ["b", "c", "d", "e"]}
    assert loaded.stored.duplicates == 1
    assert "1 rows share their PRIMARY KEY (k)" in caplog.text


def test_a_damaged_file_is_loaded_again(home: Path, caplog) -> None:
    dim = Dimension(rows(1, 2))
    dim.cache().current()
    (file,) = home.glob("cache/lookup/*/*.arrow")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert keys(dim.cache().current()) == [1, 2]
    assert dim.loads == 2
    assert "damaged" in caplog.text


@pytest.mark.parametrize("name", ["state.json", "version"])
def test_a_description_that_is_cut_is_loaded_again(home: Path, name: str) -> None:
    dim = Dimension(rows(1))
    dim.cache().current()
    (file,) = [p for p in home.glob("cache/lookup/*/*.json") if (p.name == "state.json") == (name == "state.json")]
    file.write_bytes(file.read_bytes()[:9])
    assert keys(dim.cache().current()) == [1]
    assert dim.loads == 2


def test_old_versions_leave_and_what_a_killed_process_left_does_too(home: Path) -> None:
    dim = Dimension(rows(0))
    cache = dim.cache(ttl_ms=1)
    (folder,) = [cache.files.folder]
    folder.mkdir(parents=True)
    (folder / "tmp-0").touch()
    import os

    os.utime(folder / "tmp-0", (1, 1))
    for number in range(6):
        dim.put(rows(number))
        dim.now += 1
        assert keys(cache.current()) == [number]
    assert len([name for name in files(home) if name.endswith(".arrow")]) == 3
    assert "tmp-0" not in files(home)
    assert not any("secret" in name for name in files(home))


def test_a_version_of_before_is_joined_again_while_it_is_kept() -> None:
    dim = Dimension(rows(1))
    cache = dim.cache(ttl_ms=1)
    first = cache.current().version
    dim.put(rows(2))
    dim.now += 1
    assert keys(cache.current()) == [2]
    assert keys(cache.at(first)) == [1]
    assert keys(dim.cache().at(first)) == [1]
    assert keys(cache.at("ds=0@never+0")) == [2]


def test_a_table_that_is_too_large_goes_to_disk_with_spill_and_comes_back_when_it_shrinks(home: Path) -> None:
    dim = Dimension(pa.table({"k": [n % 150 for n in range(300)], "v": [f"v{n}" for n in range(300)]}))
    loaded = dim.cache(("k",), spill=True).current()
    assert (loaded.rows, loaded.stored.form, loaded.stored.rows, loaded.stored.duplicates) == (None, "duckdb", 150, 150)
    assert dim.cache(("k",), spill=True).current().stored == loaded.stored
    assert dim.loads == 1
    dim.put(dim.rows.slice(0, 10))
    assert dim.cache(("k",), spill=True, tree="next").current().rows.num_rows == 10


def _load(home: str, start, results) -> None:
    from vector_assets.engine import env

    with env.overridden(VECTOR_ASSETS_HOME=home):
        dim = Dimension(rows(1, 2, 3))
        start.wait()
        results.put((dim.cache().current().rows.num_rows, dim.loads))


def test_of_processes_that_begin_at_once_one_loads(home: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_load, args=(str(home), start, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(timeout=30)
    assert sorted(found) == [(3, 0), (3, 0), (3, 1)]


def test_processes_of_one_shell_are_one_tree() -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=lambda: queue.put(process_tree()))
    worker.start()
    assert queue.get(timeout=30) == process_tree()
    worker.join(timeout=30)
