"""Raw records to typed rows: format name -> class, imported when asked for."""

FORMATS = {
    "avro": "vector_assets.formats.avro:AvroDecoder",
    "avro-confluent": "vector_assets.formats.avro_confluent:ConfluentDecoder",
    "canal-json": "vector_assets.formats.canal_json:CanalJsonDecoder",
    "changelog-json": "vector_assets.formats.changelog_json:ChangelogJsonDecoder",
    "csv": "vector_assets.formats.csv:CsvDecoder",
    "debezium-json": "vector_assets.formats.debezium_json:DebeziumJsonDecoder",
    "json": "vector_assets.formats.json:JsonDecoder",
    "maxwell-json": "vector_assets.formats.maxwell_json:MaxwellJsonDecoder",
    "raw": "vector_assets.formats.raw:RawDecoder",
}
