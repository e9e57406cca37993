"""A search cluster's set-up as an asset: `search_setup_asset(file)` does what `vector-assets search-setup` does."""

from contextlib import closing
from pathlib import Path

import dagster as dg

from vector_assets.clients.opensearch import connect
from vector_assets.clients.opensearch_setup import Builder
from vector_assets.declare.search_setup import read_setup


def search_setup_asset(file: Path, name: str = "search_setup") -> dg.AssetsDefinition:
    """An asset whose materialization makes what the cluster lacks; a second one changes nothing. The file and its
    secrets are read when it runs."""

    @dg.asset(name=name, kinds={"opensearch"}, description=f"What {file.name} says that a search cluster is to have.")
    def set_up(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        wanted = read_setup(file)
        with closing(connect(wanted.connection.login, str(file))) as client:
            ready = Builder(client, wanted).run(context.log.info)
        return dg.MaterializeResult(
            metadata={
                "model_id": ready.model_id,
                "connector_id": ready.connector_id,
                "index": ready.index,
                "dimension": ready.dimension,
                "changed": ready.made,
            }
        )

    return set_up
