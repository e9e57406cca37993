"""A sensor per Flink CDC pipeline that looks for new tables; they are assets after the code location was reloaded."""

import dagster as dg

from vector_assets.declare import Capture
from vector_assets.declare.cdc_look import Look, look
from vector_assets.engine.errors import UnavailableError
from vector_assets.engine.session import Books

INTERVAL_S = 60
"""Seconds between two looks for tables."""


def of(capture: Capture) -> dg.SensorDefinition:
    """The sensor that finds the tables of a CDC pipeline; on unless somebody turns it off."""

    @dg.sensor(
        name=f"{capture.name}_tables",
        description=f"Looks for new tables of {capture.name}; reload the code location to see them as assets.",
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        del context
        books = Books.open()
        try:
            return dg.SkipReason(told(look(capture, books.ledger)))
        except UnavailableError as error:
            return dg.SkipReason(f"tables not looked for: {error}")
        finally:
            books.close()

    return tick


def told(found: Look) -> str:
    """What a look found, in words."""
    parts = []
    if found.new:
        parts.append(f"new tables: {', '.join(each.name for each in found.new)}; reload the code location")
    parts += [f"{each.name} waits: {each.waits}; see `vector-assets capture`" for each in found.waiting]
    parts += [f"{name} is not taken: {why}" for name, why in found.refused]
    parts += [f"{name} is not on the server any more" for name in found.gone]
    return "; ".join(parts) or "no new tables"
