"""What rows are looked up in: connector name -> class, imported when asked for."""

LOOKUPS: dict[str, str] = {}
