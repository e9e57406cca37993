"""Raw records to typed rows: format name -> class, imported when asked for."""

FORMATS = {
    "avro": "vector_assets.formats.avro:AvroDecoder",
    "avro-confluent": "vector_assets.formats.avro_confluent:ConfluentDecoder",
    "csv": "vector_assets.formats.csv:CsvDecoder",
    "json": "vector_assets.formats.json:JsonDecoder",
    "raw": "vector_assets.formats.raw:RawDecoder",
}
