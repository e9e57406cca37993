"""Targets are cost functions of (rows of the batch, rows before it, its number, noise); no test sleeps."""

import random
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import pytest

from vector_assets.engine.limits import AdaptiveLimit

MAX_ROWS = 100_000
MEMORY = 256 * 1024**2
TARGET = 2.0
ROW_BYTES = 130
HNSW_RATE = 2_200
"""Rows/s into a table with an hnsw index, as measured (KNOWN_FACTS)."""
FAST_RATE = 400_000

Cost = Callable[[int, int, int, float], float]


class Commit(NamedTuple):
    rows: int
    seconds: float


def new_limit(first_rows: int = 200, max_rows: int = MAX_ROWS, memory: int = MEMORY) -> AdaptiveLimit:
    return AdaptiveLimit(max_rows, memory, TARGET, first_rows)


def run(
    cost: Cost,
    batches: int = 60,
    *,
    first_rows: int = 200,
    seed: int | None = None,
    ahead: int = 0,
    waiting: Callable[[int], int] = lambda number: 10**9,
) -> list[Commit]:
    """Commits of a pipeline whose reader is `ahead` batches before its committer; `waiting` rows are in the source."""
    limit, noise = new_limit(first_rows), random.Random(seed)
    read: deque[int] = deque()
    done: list[Commit] = []
    for number in range(batches):
        while len(read) <= ahead:
            allowed = limit.next()
            read.append(max(min(allowed.rows, allowed.bytes // ROW_BYTES, waiting(number + len(read))), 1))
        rows = read.popleft()
        factor = noise.lognormvariate(0, 0.15) if seed is not None else 1.0
        seconds = cost(rows, sum(c.rows for c in done), number, factor)
        done.append(Commit(rows, seconds))
        limit.observe(rows, rows * ROW_BYTES, seconds)
    return done


def at_rate(rate: float, overhead: float = 0.01) -> Cost:
    return lambda rows, before, number, noise: overhead + rows / rate * noise


SLOW: dict[str, Cost] = {
    "hnsw": at_rate(HNSW_RATE),
    "hnsw that slows as it grows": lambda r, before, _, noise: 0.01 + r / HNSW_RATE * noise * (1 + before / 50_000),
    "quadratic in the batch": lambda r, before, _, noise: 0.01 + (r / HNSW_RATE) ** 2 * noise,
    "large overhead": lambda r, before, _, noise: 0.5 * noise + r / HNSW_RATE * noise,
}


def test_a_fast_target_reaches_the_largest_batch_in_few() -> None:
    rows = [commit.rows for commit in run(at_rate(FAST_RATE), 8)]
    assert rows == [200, 800, 3_200, 12_800, 51_200, MAX_ROWS, MAX_ROWS, MAX_ROWS]


@pytest.mark.parametrize("ahead", [0, 3], ids=["in step", "reading ahead"])
@pytest.mark.parametrize("cost", SLOW.values(), ids=SLOW)
def test_no_commit_of_a_slow_target_takes_over_ten_seconds(cost: Cost, ahead: int) -> None:
    slowest = max(c.seconds for seed in range(30) for c in run(cost, seed=seed, ahead=ahead))
    assert slowest < 10


def test_a_slow_target_settles_at_the_target_time() -> None:
    settled = run(at_rate(HNSW_RATE))[10:]
    assert all(commit.seconds == pytest.approx(TARGET, rel=0.01) for commit in settled)


def test_noise_moves_it_around_the_target_time() -> None:
    settled = run(at_rate(HNSW_RATE), 200, seed=1)[10:]
    assert sum(commit.seconds for commit in settled) / len(settled) == pytest.approx(TARGET, rel=0.2)


def test_it_speeds_up_again_when_the_index_is_dropped() -> None:
    commits = run(lambda rows, _, number, noise: 0.01 + rows / (HNSW_RATE if number < 20 else FAST_RATE), 32)
    assert commits[19].rows < 5_000
    assert commits[-1].rows == MAX_ROWS


def test_it_shrinks_at_once_when_the_target_slows_down() -> None:
    commits = run(lambda rows, _, number, noise: 0.01 + rows / (FAST_RATE if number < 10 else 20_000), 14)
    assert commits[10] == Commit(MAX_ROWS, 5.01)
    assert all(commit.seconds <= TARGET * 1.01 for commit in commits[11:])


def test_it_grows_at_most_fourfold_on_what_was_committed() -> None:
    limit = new_limit(first_rows=1_000)
    for rows, allowed in [(1_000, 4_000), (3_000, 12_000), (12_000, 48_000)]:
        limit.observe(rows, rows * ROW_BYTES, 0.02)
        assert limit.next().rows == allowed


def test_tiny_batches_predict_nothing() -> None:
    limit = new_limit(first_rows=20_000)
    for _ in range(50):
        limit.observe(5, 5 * ROW_BYTES, 0.03)
    assert limit.next().rows == 20_000


@pytest.mark.parametrize("ahead", [0, 3], ids=["in step", "reading ahead"])
def test_after_a_trickle_of_tiny_batches_it_starts_small_again(ahead: int) -> None:
    """An index may have been made meanwhile, and tiny batches would not have shown it."""
    commits = run(
        lambda rows, _, number, noise: 0.01 + rows / (FAST_RATE if number < 30 else HNSW_RATE) * noise,
        110,
        seed=2,
        ahead=ahead,
        waiting=lambda number: 5 if 30 <= number < 60 else 10**9,
    )
    assert commits[29].rows == MAX_ROWS
    assert max(commit.seconds for commit in commits) < 10


@pytest.mark.parametrize("overhead", [2.1, 2.5, 5.0])
def test_an_overhead_over_the_target_does_not_shrink_batches_for_ever(overhead: float) -> None:
    commits = run(at_rate(FAST_RATE, overhead), 60)
    assert commits[-1].rows == MAX_ROWS
    assert max(commit.seconds for commit in commits) < overhead + TARGET / 2


def test_one_stall_does_not_last() -> None:
    commits = run(lambda rows, _, number, noise: 0.01 + rows / FAST_RATE + (3.0 if number == 10 else 0.0), 14)
    assert commits[11].rows > 40_000
    assert commits[-1].rows == MAX_ROWS


@pytest.mark.parametrize(
    "cost", [at_rate(FAST_RATE), at_rate(HNSW_RATE), at_rate(FAST_RATE, 0.5)], ids=["fast", "hnsw", "overhead"]
)
def test_batches_of_every_size_never_lead_to_a_long_commit(cost: Cost) -> None:
    source = random.Random(3)
    waiting = {number: source.choice([1, 5, 50, 500, 5_000, 10**9]) for number in range(310)}
    for seed in range(20):
        assert max(c.seconds for c in run(cost, 300, seed=seed, ahead=3, waiting=waiting.__getitem__)) < 10


@pytest.mark.parametrize(("first", "most", "expected"), [(0, 10, 1), (5, 10, 5), (50, 10, 10), (1, 1, 1)])
def test_the_first_batch_is_as_asked_within_bounds(first: int, most: int, expected: int) -> None:
    assert new_limit(first, most).next().rows == expected


def test_bytes_fit_the_memory_with_all_batches_in_flight() -> None:
    assert AdaptiveLimit(10, 256 * 1024**2, TARGET, 1, in_flight=4).next().bytes == 16 * 1024**2
    assert AdaptiveLimit(10, 256 * 1024**2, TARGET, 1, in_flight=1).next().bytes == 64 * 1024**2
    assert AdaptiveLimit(10, 1, TARGET, 1).next().bytes == 1


def test_large_records_are_limited_by_bytes() -> None:
    limit = new_limit(first_rows=1_000)
    limit.observe(100, 10_000_000, 10.0)
    assert limit.next().bytes == pytest.approx(2_000_000, rel=0.01)
    limit.observe(20, 2_000_000, 0.2)
    assert limit.next().bytes > 2_000_000
    for _ in range(10):
        limit.observe(1_000, limit.next().bytes, 0.2)
    assert limit.next().bytes == 16 * 1024**2


def test_a_batch_is_as_large_as_a_model_makes_in_the_target_time_and_no_smaller_than_the_first() -> None:
    limit = new_limit(first_rows=1_000)
    for rows in (1_000, 1_000, 1_000):
        limit.observe(rows, rows * ROW_BYTES, 0.1, rows / 900)
    for _ in range(20):
        rows = limit.next().rows
        assert 1_000 <= rows <= 2_500
        limit.observe(rows, rows * ROW_BYTES, 0.1, rows / 900)
    assert rows > 1_200
    # a model that takes seconds for anything gets whole batches all the same, so that its requests go side by side
    for _ in range(20):
        limit.observe(limit.next().rows, 1_000, 0.1, 9.0)
    assert limit.next().rows == 1_000
    # texts whose vectors are known are no model's matter
    limit.observe(1_000, 1_000 * ROW_BYTES, 0.1)
    assert limit.next().rows > 2_500


@pytest.mark.parametrize(("rows", "seconds"), [(0, 5.0), (5, 0.0)], ids=["no rows", "no time"])
def test_a_commit_that_says_nothing_changes_nothing(rows: int, seconds: float) -> None:
    limit = new_limit()
    before = limit.next()
    limit.observe(rows, rows * ROW_BYTES, seconds)
    assert limit.next() == before


def test_until_is_handed_on() -> None:
    assert new_limit().next({"t/0": 7}).until == {"t/0": 7}
    assert new_limit().next().until is None


def test_it_stays_in_bounds_when_threads_share_it() -> None:
    limit = new_limit()
    seen: list[int] = []

    def commit(seed: int) -> None:
        source = random.Random(seed)
        for _ in range(500):
            rows = limit.next().rows
            seen.append(rows)
            limit.observe(rows, rows * ROW_BYTES, source.uniform(0.001, 20))

    threads = [threading.Thread(target=commit, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 2_000
    assert min(seen) >= 1
    assert max(seen) <= MAX_ROWS
