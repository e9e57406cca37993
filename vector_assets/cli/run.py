"""`vector-assets run` and `replay`: batches applied now, with a progress bar and a summary."""

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import JsonOption, PipelineArgument, command, emit, show_table, stderr, usage
from vector_assets.engine.errors import ConfigError, TransientError, VectorAssetsError

if TYPE_CHECKING:
    from vector_assets.engine.run import Outcome
    from vector_assets.engine.session import Session

log = logging.getLogger(__name__)
_RATE_SECONDS = 5.0
"""The rate on the bar is that of the last seconds."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(
        app,
        "vector-assets run car_info             up to the newest record there is now",
        "vector-assets run car_info --follow    until Ctrl-C",
        "vector-assets run visits --partition ds=20180905    one partition of a source that has its own",
    )(run)
    command(
        app,
        "vector-assets replay car_info",
        "vector-assets replay car_info --partition 2026-03-01-14:00",
        "vector-assets replay car_info --from-batch 12 --to-batch 20",
        "vector-assets replay car_info --rewrite --from-hour 2026-03-01-14:00 --to-hour 2026-03-02-13:00",
    )(replay)


def run(
    pipeline: PipelineArgument,
    *,
    follow: Annotated[
        bool, typer.Option("--follow/--until-caught-up", help="Go on for new records, or end at the newest one.")
    ] = False,
    partition: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Only this partition of a source that has partitions of its own.")
    ] = None,
    start_at: Annotated[
        str | None,
        typer.Option(metavar="WHERE", help="Where a pipeline begins whose ledger knows nothing of it: as reset --to."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read new records and land them in the target.

    Unfinished batches of an earlier run are finished first. Ctrl-C (or SIGTERM) commits the batch in hand and ends; a
    second one ends at once, and the next run carries on where this one stood.
    """
    from vector_assets.cli.declared import opened
    from vector_assets.declare.autoetl_asked import Asked
    from vector_assets.engine import links
    from vector_assets.engine.run import Runner

    if follow and partition is not None:
        usage("--partition is one partition, which ends: leave out --follow")
    stop = threading.Event()
    with opened(pipeline) as session, _Bar(pipeline) as bar, stopping(stop, bar):
        if start_at is not None:
            from vector_assets.engine import lost

            lost.start_at(session, start_at)
        asked = Asked(session)
        asked.look()
        if not follow and links.is_paused(session.ledger, pipeline):
            raise ConfigError(f"link {pipeline} is paused: vector-assets autoetl resume {pipeline}")
        runner = Runner(session, stop)
        with asked.told():
            asked.begin()
            if partition is not None:
                outcomes = runner.read_partition(session.partitioning.key(partition))
            else:
                outcomes = runner.follow(asked.look) if follow else runner.catch_up()
            summary = _consume(outcomes, bar, stop)
        if partition is None and not stop.is_set() and (waiting := _waiting(session)):
            bar.note(f"{pipeline}: {waiting}")
    _report(pipeline, summary, as_json=as_json)


def _waiting(session: "Session") -> str | None:
    """Which partitions of the source's own a run left for later, and why."""
    from vector_assets.cli.survey import waiting_of

    pipeline, ledger = session.pipeline, session.ledger
    try:
        return waiting_of(pipeline, session.source, ledger.position(pipeline.name, pipeline.target))
    except VectorAssetsError as error:
        log.info("%s: what waits is not known: %s", pipeline.name, error)
        return None


def replay(
    pipeline: PipelineArgument,
    *,
    partition: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Only this partition's batches: YYYY-MM-DD-HH:MM (UTC), or ds=20180905."),
    ] = None,
    from_batch: Annotated[int, typer.Option(metavar="N", min=1, help="First batch.")] = 1,
    to_batch: Annotated[int | None, typer.Option(metavar="M", min=1, help="Last batch.")] = None,
    seq: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only this batch.")] = None,
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="Make the batches again with today's script, and replace their rows.")
    ] = False,
    from_hour: Annotated[str | None, typer.Option(metavar="KEY", help="With --rewrite: first partition.")] = None,
    to_hour: Annotated[str | None, typer.Option(metavar="KEY", help="With --rewrite: last partition.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="With --rewrite: also what today's script has rewritten already.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Apply again, from the archive, the batches that the target does not have; or make them again with --rewrite.

    A batch that the target has is left alone, so a replay may be repeated; the topic is not read. A rewrite replaces
    the rows of a target with a key, except where another record owns the row by now; stopped, it goes on where it
    stood.
    """
    from vector_assets.cli.declared import opened
    from vector_assets.engine.run import Runner

    if seq is not None:
        if from_batch != 1 or to_batch is not None:
            usage("--seq is one batch: leave out --from-batch and --to-batch")
        from_batch, to_batch = seq, seq
    if to_batch is not None and to_batch < from_batch:
        usage(f"--to-batch {to_batch} comes before --from-batch {from_batch}")
    if partition and (from_hour or to_hour):
        usage("--partition is one partition: leave out --from-hour and --to-hour")
    if rewrite:
        hours = (from_hour or partition, to_hour or partition)
        _rewrite(pipeline, hours, (from_batch, to_batch), again=again, as_json=as_json)
        return
    if from_hour or to_hour or again:
        usage("--from-hour, --to-hour and --again belong to --rewrite")
    stop = threading.Event()
    with opened(pipeline) as session, _Bar(pipeline) as bar, stopping(stop, bar):
        if partition is not None:
            partition = session.partitioning.key(partition)
        outcomes = Runner(session, stop).replay(partition, first=from_batch, last=to_batch)
        summary = _consume(_until(stop, outcomes), bar, stop)
    _report(pipeline, summary, as_json=as_json)


def _rewrite(
    pipeline: str, hours: tuple[str | None, str | None], batches: tuple[int, int | None], *, again: bool, as_json: bool
) -> None:
    from vector_assets.cli.declared import opened
    from vector_assets.engine.rewrite import Selection, rewrite, selected
    from vector_assets.engine.run import Runner

    stop = threading.Event()
    with opened(pipeline) as session, _Bar(pipeline) as bar, stopping(stop, bar):
        start, end = (session.partitioning.key(hour) if hour is not None else None for hour in hours)
        selection = Selection(start, end, *batches, again=again)
        bar.expect(sum(batch.counts.records for batch in selected(session, selection)))
        summary = _consume(rewrite(Runner(session, stop), selection), bar, stop)
    _report(pipeline, summary, as_json=as_json)


def _until(stop: threading.Event, outcomes: "Iterable[Outcome]") -> "Iterator[Outcome]":
    for outcome in outcomes:
        yield outcome
        if stop.is_set():
            return


@dataclass
class Summary:
    """What a run did, over all its batches."""

    applied: int = 0
    found: int = 0
    counts: Any = None
    lag: int | None = None
    seconds: float = 0.0
    first: int | None = None
    last: int | None = None

    def add(self, outcome: "Outcome") -> None:
        """One batch more; a batch that was only found in the target counts no records."""
        self.last = outcome.batch.seq
        self.first = self.last if self.first is None else self.first
        self.lag = outcome.lag if outcome.lag is not None else self.lag
        if outcome.how == "found":
            self.found += 1
            return
        self.applied += 1
        self.counts = outcome.batch.counts if self.counts is None else self.counts + outcome.batch.counts

    @property
    def rows_per_s(self) -> int:
        """Records a second, start-up included."""
        records = self.counts.records if self.counts else 0
        return round(records / self.seconds) if self.seconds else 0

    def to_json(self) -> dict[str, Any]:
        """The summary for programs."""
        from vector_assets.engine.core import Counts

        return {
            "batches": {"applied": self.applied, "found": self.found, "first": self.first, "last": self.last},
            "counts": (self.counts or Counts()).to_dict(),
            "lag": self.lag,
            "seconds": round(self.seconds, 3),
            "rows_per_s": self.rows_per_s,
        }


def _consume(outcomes: "Iterable[Outcome]", bar: "_Bar", stop: threading.Event) -> Summary:
    """Take every outcome; an outage that was not waited out because of `stop` ends it without an error."""
    began = time.monotonic()
    summary = Summary()
    try:
        for outcome in outcomes:
            summary.add(outcome)
            bar.show(outcome)
            _log(outcome)
    except TransientError as error:
        if not stop.is_set():
            raise
        bar.note(f"stopped during an outage: {error}")
    summary.seconds = time.monotonic() - began
    return summary


def _log(outcome: "Outcome") -> None:
    batch = outcome.batch
    rejected = batch.counts.rejected + batch.counts.refused
    log.info(
        "%s: batch %d %s: %d records, %d written, %d rejected",
        batch.pipeline, batch.seq, outcome.how, batch.counts.records, batch.counts.written, rejected,
    )  # fmt: skip


def _report(pipeline: str, summary: Summary, *, as_json: bool) -> None:
    values = summary.to_json()
    if as_json:
        emit({"pipeline": pipeline, **values})
        return
    counts = values["counts"]
    columns = (
        "pipeline", "batches", "records", "written", "deleted", "conflicts", "superseded", "rejected", "rows/s", "lag",
    )  # fmt: skip
    batches = f"{summary.applied}" + (f" (+{summary.found} already there)" if summary.found else "")
    rejected = counts["rejected"] + counts["refused"]
    row = (
        pipeline, batches, counts["records"], counts["written"], counts["deleted"], counts["conflicts"],
        counts["superseded"], rejected, summary.rows_per_s, summary.lag,
    )  # fmt: skip
    show_table(columns, [row], right=columns[1:])


class _Bar:
    """Progress on stderr where that is a terminal: records of how many, rows a second, lag."""

    def __init__(self, pipeline: str) -> None:
        self._records = 0
        self._total: int | None = None
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        # not for every command's --help
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[lag]}"), TimeElapsedColumn(),
            console=stderr, transient=True, disable=not stderr.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(pipeline, total=None, rate="", lag="")

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back."""
        self._progress.stop()

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(message, markup=False)

    def expect(self, records: int) -> None:
        """So many records will come."""
        self._total = records

    def show(self, outcome: "Outcome") -> None:
        """One batch more."""
        self._records += outcome.batch.counts.records
        now = time.monotonic()
        self._recent.append((now, self._records))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RATE_SECONDS:
            self._recent.popleft()
        since, before = self._recent[0]
        rate = (self._records - before) / max(now - since, 1e-3)
        known = outcome.lag is not None
        self._progress.update(
            self._task,
            completed=self._records,
            total=self._records + (outcome.lag or 0) if known else self._total,
            rate=f"{rate:,.0f} rows/s",
            lag=f"lag {outcome.lag:,}" if known else "",
        )


@contextmanager
def stopping(stop: threading.Event, bar: _Bar) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`; a second one ends the process at once.

    Ending at once is safe at any point (a batch is finished or taken back by the next run), and the only way that does
    not wait for a service that does not answer.
    """

    def asked(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            bar.close()
            os.write(2, b"ended at once; the next run carries on from here\n")
            os._exit(128 + number)
        stop.set()
        bar.note("stopping: the batch in hand is committed first; once more ends at once")

    before = {number: signal.signal(number, asked) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
