"""Jobs of a pipeline beside its asset: the continuous mode, and dead letters written again."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from vector_assets.defs import events, failures, names, runs
from vector_assets.engine import operate
from vector_assets.engine.dead_letters import DeadLetter
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.pipeline import Pipeline


class DeadLetterConfig(dg.Config):
    """Which open dead letters: these ids, or all when there are none."""

    ids: list[int] = Field(default_factory=list)


def of(pipeline: Pipeline) -> list[dg.JobDefinition]:
    """The pipeline's jobs."""
    return [_continuous(pipeline), _dead_letters(pipeline)]


def _continuous(pipeline: Pipeline) -> dg.JobDefinition:
    name = names.continuous_job(pipeline)

    # no pool: the lease is taken anew for each round, so that a backfill gets in between
    @dg.op(name=f"follow_{pipeline.name}", out={})
    def follow(context: dg.OpExecutionContext) -> Iterator[dg.AssetMaterialization]:
        with failures.told(pipeline), runs.opened(pipeline, context.run.run_id) as runner:
            for outcome in runs.taken(runner, runner.follow()):
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
