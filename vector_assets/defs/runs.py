"""A run opened and iterated: told to stop, it commits the batch in hand, then ends."""

import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FrameType

import dagster as dg

from vector_assets.defs.names import RUN_PREFIX
from vector_assets.engine.errors import TransientError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.session import Books, Session

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def opened(pipeline: Pipeline, run_id: str) -> Iterator[Runner]:
    """A runner with books and connections of its own, all given back at the end."""
    books = Books.open()
    try:
        with Session(pipeline, books, run_id=f"{RUN_PREFIX}{run_id}") as session:
            yield Runner(session)
    finally:
        books.close()


def taken(runner: Runner, outcomes: Iterator[Outcome]) -> Generator[Outcome, None, None]:
    """The outcomes one by one; after a request to stop, that of the batch in hand is the last.

    Raises:
        dg.DagsterExecutionInterruptedError: the run was told to stop.
    """
    try:
        while (outcome := _next(runner, outcomes)) is not None:
            yield outcome
            if runner.stop.is_set():
                break
    finally:
        is_interrupted = runner.stop.is_set()
        runner.stop.set()
        if isinstance(outcomes, Generator):
            outcomes.close()
    if is_interrupted:
        raise dg.DagsterExecutionInterruptedError


def _next(runner: Runner, outcomes: Iterator[Outcome]) -> Outcome | None:
    with _deferred(runner):
        try:
            return next(outcomes, None)
        except TransientError as error:
            if runner.stop.is_set():
                # the batch in hand could not be committed: the next run finds out whether it was
                raise dg.DagsterExecutionInterruptedError from error
            raise


@contextmanager
def _deferred(runner: Runner) -> Iterator[None]:
    """Dagster's signals wait for the batch in hand; without one, or sent again, they end the run at once.

    Dagster raises its interruption wherever the main thread happens to be, which may be inside a commit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return

    def asked(_number: int, _frame: FrameType | None) -> None:
        was_asked = runner.stop.is_set()
        runner.stop.set()
        if was_asked or not runner.has_batch_in_hand:
            raise dg.DagsterExecutionInterruptedError

    before = {number: signal.signal(number, asked) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
