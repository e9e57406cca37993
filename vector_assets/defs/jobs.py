"""Jobs of a pipeline beside its asset: the continuous mode, dead letters written again, retention once a day."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from vector_assets.declare.autoetl_asked import Asked
from vector_assets.defs import events, failures, names, runs
from vector_assets.engine import operate
from vector_assets.engine.dead_letters import DeadLetter
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.retention import apply_retention


class DeadLetterConfig(dg.Config):
    """Which open dead letters: these ids, or all when there are none."""

    ids: list[int] = Field(default_factory=list)


def of(pipeline: Pipeline) -> list[dg.JobDefinition]:
    """The pipeline's jobs."""
    return [_continuous(pipeline), _dead_letters(pipeline)]


def schedules(pipeline: Pipeline) -> list[dg.ScheduleDefinition]:
    """Once a day what is too old goes, for a pipeline whose settings limit what is kept; none for any other."""
    settings = pipeline.settings
    if not (settings.retention_archive or settings.retention_ledger or settings.retention_dead_letters):
        return []
    schedule = dg.ScheduleDefinition(
        name=f"{names.retention_job(pipeline)}_schedule", job=_retention(pipeline), cron_schedule="17 3 * * *",
        execution_timezone="UTC", default_status=dg.DefaultScheduleStatus.RUNNING,
    )  # fmt: skip
    return [schedule]


def _retention(pipeline: Pipeline) -> dg.JobDefinition:
    # no pool: it waits for the lease, which a continuous job gives back after each round
    @dg.op(name=f"retention_of_{pipeline.name}", out=dg.Out(dg.Nothing))
    def let_go(context: dg.OpExecutionContext) -> None:
        with failures.told(pipeline), runs.opened(pipeline, context.run.run_id) as runner:
            plan = apply_retention(runner.session)
            context.log.info(
                "%d batches expired, %d folded, %d dead letters purged",
                len(plan.expiring), len(plan.folding), len(plan.letters),
            )  # fmt: skip

    @dg.job(name=names.retention_job(pipeline), description=f"Lets go of what {pipeline.name} keeps no longer.")
    def job() -> None:
        let_go()

    return job


def _continuous(pipeline: Pipeline) -> dg.JobDefinition:
    name = names.continuous_job(pipeline)

    # no pool: the lease is taken anew for each round, so that a backfill gets in between
    @dg.op(name=f"follow_{pipeline.name}", out={})
    def follow(context: dg.OpExecutionContext) -> Iterator[dg.AssetMaterialization]:
        with failures.told(pipeline), runs.opened(pipeline, context.run.run_id) as runner:
            asked = Asked(runner.session)
            with asked.told():
                asked.begin()
                for outcome in runs.taken(runner, runner.follow(asked.look)):
                    yield events.materialization(runner, outcome)

    @dg.job(name=name, tags=names.tags(pipeline), description=f"Follows {pipeline.name} until it is terminated.")
    def job() -> None:
        follow()

    return job


def _dead_letters(pipeline: Pipeline) -> dg.JobDefinition:
    name = names.dead_letters_job(pipeline)

    @dg.op(name=f"replay_dead_letters_of_{pipeline.name}", out={}, pool=names.pool(pipeline))
    def replay(context: dg.OpExecutionContext, config: DeadLetterConfig) -> Iterator[dg.AssetMaterialization]:
        with failures.told(pipeline), runs.opened(pipeline, context.run.run_id) as runner:
            outcome = operate.replay_dead_letters(runner.session, _open_letters(pipeline, runner.ledger, config.ids))
            if outcome is not None:
                yield events.materialization(runner, outcome)

    @dg.job(name=name, description=f"Writes open dead letters of {pipeline.name} again, with today's declaration.")
    def job() -> None:
        replay()

    return job


def _open_letters(pipeline: Pipeline, ledger: Ledger, ids: list[int]) -> list[DeadLetter]:
    letters = ledger.dead_letters.listed(pipeline.name)
    unknown = sorted(set(ids) - {letter.id for letter in letters})
    if unknown:
        listed = ", ".join(str(number) for number in unknown)
        raise ConfigError(f"{pipeline.name}: no open dead letters with the ids {listed}")
    return [letter for letter in letters if not ids or letter.id in ids]
