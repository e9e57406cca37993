"""Everything that a process of `ChangeJob.run_apart` needs, imported once by the server that forks it."""

import vector_assets.clients.iceberg_transaction
import vector_assets.clients.kafka
import vector_assets.clients.milvus_api
import vector_assets.engine.rewrite
import vector_assets.formats.changelog_json
import vector_assets.formats.debezium_json
import vector_assets.sinks.adbpg
import vector_assets.sinks.iceberg
import vector_assets.sinks.milvus
import vector_assets.sinks.opensearch
import vector_assets.sinks.opensearch_audit
import vector_assets.sources.kafka
import vector_assets.transforms.duck  # noqa: F401
from tests.faults import changes  # noqa: F401
