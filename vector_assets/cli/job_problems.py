"""Why a lake job could not run now, as far as that can be told without running it."""

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from vector_assets.engine.errors import ConfigError, PlanError, TransientError

if TYPE_CHECKING:
    from vector_assets.declare.lake_shelf import Item
    from vector_assets.engine.ledger import Ledger
    from vector_assets.engine.pipeline import Pipeline


def undeclared(items: "Sequence[Item]", found: "Sequence[Pipeline]", errors: Sequence[ConfigError]) -> dict[str, str]:
    """Jobs that could not be read or compiled, by name, and what is wrong with their files."""
    names = {pipeline.name for pipeline in found}
    wrong = {error.place.file: str(error) for error in reversed(errors) if error.place is not None}
    return {item.name: wrong[item.file] for item in items if item.name not in names and item.file in wrong}


def refused(pipeline: "Pipeline", ledger: "Ledger") -> str | None:
    """What the next run would stop at: something fixed was changed, or columns that the table cannot take.

    None also where the table does not answer.
    """
    from vector_assets.engine.creation import refuse_changes

    try:
        refuse_changes(ledger, pipeline)
        changes_of(pipeline, ledger)
    except (ConfigError, PlanError) as error:
        return str(error)
    except TransientError:
        return None
    return None


def changes_of(pipeline: "Pipeline", ledger: "Ledger") -> tuple[str, ...]:
    """What the next run will change of the job's table, one sentence each; the table is asked only if the form's
    columns were changed since the last batch.

    Raises:
        PlanError: the table cannot take them.
        TransientError: it does not answer.
    """
    from vector_assets.engine.evolution import form_changes

    with closing(pipeline.open_sink()) as sink:
        return form_changes(ledger, pipeline, sink)
