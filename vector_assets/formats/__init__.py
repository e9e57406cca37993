"""Raw records to typed rows: format name -> class, imported when asked for."""

FORMATS = {
    "csv": "vector_assets.formats.csv:CsvDecoder",
    "json": "vector_assets.formats.json:JsonDecoder",
}
