"""Where rows go: connector name -> class, imported when asked for."""

SINKS = {
    "adbpg": "vector_assets.sinks.adbpg:AdbPgSink",
    "blackhole": "vector_assets.sinks.console:BlackholeSink",
    "iceberg": "vector_assets.sinks.iceberg:IcebergSink",
    "milvus": "vector_assets.sinks.milvus:MilvusSink",
    "odps": "vector_assets.sinks.maxcompute:MaxComputeSink",
    "opensearch": "vector_assets.sinks.opensearch:OpenSearchSink",
    "opensearch-2": "vector_assets.sinks.opensearch:OpenSearchSink",
    "paimon": "vector_assets.sinks.paimon:PaimonSink",
    "print": "vector_assets.sinks.console:PrintSink",
}
