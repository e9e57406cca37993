"""Where rows go: connector name -> class, imported when asked for."""

SINKS = {
    "adbpg": "vector_assets.sinks.adbpg:AdbPgSink",
    "milvus": "vector_assets.sinks.milvus:MilvusSink",
}
