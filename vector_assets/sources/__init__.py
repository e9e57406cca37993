"""Where records come from: connector name -> class, imported when asked for."""

SOURCES = {
    "kafka": "vector_assets.sources.kafka:KafkaSource",
}
