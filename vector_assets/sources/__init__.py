"""Where records come from: connector name -> class, imported when asked for."""

SOURCES = {
    "datagen": "vector_assets.sources.datagen:DatagenSource",
    "kafka": "vector_assets.sources.kafka:KafkaSource",
    "mysql-cdc": "vector_assets.sources.mysql:MySqlCdcSource",
    "odps": "vector_assets.sources.maxcompute:MaxComputeSource",
    "upsert-kafka": "vector_assets.sources.upsert_kafka:UpsertKafkaSource",
}
