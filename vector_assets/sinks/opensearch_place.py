"""Where the documents of a batch go, when the target is several indices."""

from collections.abc import Callable
from dataclasses import replace

from vector_assets.clients.opensearch import Client
from vector_assets.sinks.opensearch_index import homes
from vector_assets.sinks.opensearch_plan import Plan
from vector_assets.sinks.opensearch_values import Documents
from vector_assets.sinks.opensearch_write import Work


def place(
    client: Client, plan: Plan, work: Work, begin: Callable[[], bool], make: Callable[[set[str]], None]
) -> tuple[Work, int]:
    """The work as it is to be sent, and how many of its documents an earlier attempt has written.

    - One index, or one for each row by a pattern: as it is; an id cannot be there twice. `make` makes the indices.
    - Keys in several: a document goes to the index that holds it now, a new one to the write index.
    - New documents in several: after a roll-over an id would not be refused again, so what an earlier attempt wrote
      (`begin` knows whether there was one) is looked for and left out.
    """
    if plan.index.pattern is not None:
        make(_names(work.upserts) | (_names(work.deletes) if work.deletes is not None else set()))
        return work, 0
    if not plan.is_searched_first:
        return work, 0
    name = plan.index.name
    if plan.key:
        ids = work.upserts.ids.tolist() + (work.deletes.ids.tolist() if work.deletes is not None else [])
        found = homes(client, name, ids)
        deletes = work.deletes.at_home(found, name) if work.deletes is not None else None
        return replace(work, deletes=deletes, upserts=work.upserts.at_home(found, name)), 0
    if not begin():
        return work, 0
    found = homes(client, name, work.upserts.ids.tolist())
    return replace(work, upserts=work.upserts.without(found)), len(found)


def _names(documents: Documents) -> set[str]:
    return set(documents.names.unique().tolist()) if documents.names is not None else set()
