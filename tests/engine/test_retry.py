import logging
import threading
from collections.abc import Callable

import pytest
import tenacity

from vector_assets.engine.errors import FatalError, TransientError, UnavailableError
from vector_assets.engine.retry import RetryPolicy, attempts, call

QUICK = RetryPolicy(retries=3, wait_seconds=0.0, outage_seconds=60.0)


class Service:
    """Fails with the errors given, then answers; counts how often it was asked."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


class Clock(threading.Event):
    """Notes the pauses asked of it and is never set; time stands still but for them."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0.0)
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tenacity.time, "monotonic", lambda: sum(clock.pauses))
    return clock


def test_an_answer_is_handed_back_at_once() -> None:
    service = Service()
    assert call(QUICK, service, place="shop") == "answer"
    assert service.asked == 1


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_transient_error_is_tried_again_as_often_as_the_policy_says(retries: int) -> None:
    service = Service(*[TransientError(str(i)) for i in range(retries)])
    assert call(RetryPolicy(retries, 0.0), service, place="shop") == "answer"
    assert service.asked == retries + 1


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_last_error_is_raised_as_it_is(retries: int) -> None:
    errors = [TransientError(str(i)) for i in range(retries + 1)]
    service = Service(*errors, TransientError("never reached"))
    with pytest.raises(TransientError) as caught:
        call(RetryPolicy(retries, 0.0), service, place="shop")
    assert caught.value is errors[-1]
    assert service.asked == retries + 1


@pytest.mark.parametrize("error", [FatalError("stop"), ValueError("bug")])
def test_any_other_error_is_not_tried_again(error: Exception) -> None:
    service = Service(error)
    with pytest.raises(type(error)):
        call(QUICK, service, place="shop")
    assert service.asked == 1


def test_pauses_are_the_policys_unless_the_service_names_one(clock: Clock) -> None:
    service = Service(TransientError("a"), TransientError("b", retry_after=7.5), TransientError("c"))
    call(RetryPolicy(3, 0.25, stop=clock), service, place="shop")
    assert clock.pauses == [0.25, 7.5, 0.25]


def test_an_outage_is_waited_for_with_growing_pauses_until_its_time_is_up(clock: Clock) -> None:
    service = Service(*[UnavailableError("refused")] * 100)
    with pytest.raises(UnavailableError):
        call(RetryPolicy(retries=1, outage_seconds=30.0, stop=clock), service, place="shop")
    assert clock.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2] + [5.0] * 5)
    assert 30 <= sum(clock.pauses) < 35.1


def test_an_outage_uses_up_no_retries(clock: Clock) -> None:
    down = [UnavailableError("refused")] * 5
    service = Service(*down, TransientError("a"), *down, TransientError("b"))
    assert call(RetryPolicy(retries=2, wait_seconds=0.0, stop=clock), service, place="shop") == "answer"
    assert service.asked == 13


def test_every_outage_has_its_own_time(clock: Clock) -> None:
    down = [UnavailableError("refused")] * 8
    service = Service(*down, TransientError("up again"), *down)
    assert call(RetryPolicy(3, 0.0, outage_seconds=15.0, stop=clock), service, place="shop") == "answer"
    assert sum(clock.pauses) > 15


def test_no_outage_time_means_no_waiting() -> None:
    service = Service(UnavailableError("refused"))
    with pytest.raises(UnavailableError):
        call(RetryPolicy(outage_seconds=0.0), service, place="shop")
    assert service.asked == 1


def test_every_new_attempt_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        call(QUICK, Service(TransientError("timed out")), place="shop: buying")
    assert [record.getMessage() for record in caplog.records] == ["shop: buying: timed out; trying again"]


def test_each_call_has_a_budget_of_its_own() -> None:
    def use(service: Callable[[], str]) -> str:
        return call(RetryPolicy(1, 0.0), service, place="shop")

    assert [use(Service(TransientError("a"))), use(Service(TransientError("b")))] == ["answer"] * 2


def test_a_block_is_run_again_and_may_remember_what_happened() -> None:
    service, seen = Service(TransientError("a"), TransientError("b")), []
    for attempt in attempts(QUICK, place="shop"):
        with attempt:
            seen.append(attempt.retry_state.attempt_number)
            service()
    assert seen == [1, 2, 3]


def test_once_stopped_nothing_is_tried_again() -> None:
    stop = threading.Event()
    stop.set()
    service = Service(UnavailableError("refused"))
    with pytest.raises(UnavailableError):
        call(RetryPolicy(stop=stop), service, place="shop")
    assert service.asked == 1


def test_a_stop_ends_a_pause_with_the_last_error() -> None:
    stop = threading.Event()
    error = TransientError("busy", retry_after=3600)
    service = Service(error, TransientError("never reached"))
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    with pytest.raises(TransientError) as caught:
        call(RetryPolicy(stop=stop), service, place="shop")
    timer.join()
    assert caught.value is error
    assert service.asked == 1
