"""Where rows go: connector name -> class, imported when asked for."""

SINKS = {
    "adbpg": "vector_assets.sinks.adbpg:AdbPgSink",
    "blackhole": "vector_assets.sinks.console:BlackholeSink",
    "iceberg": "vector_assets.sinks.iceberg:IcebergSink",
    "milvus": "vector_assets.sinks.milvus:MilvusSink",
    "paimon": "vector_assets.sinks.paimon:PaimonSink",
    "print": "vector_assets.sinks.console:PrintSink",
}
