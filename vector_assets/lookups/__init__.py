"""What rows are looked up in: connector name -> class, imported when asked for."""

LOOKUPS = {
    "odps": "vector_assets.lookups.maxcompute:MaxComputeLookup",
}
