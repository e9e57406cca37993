"""The Dagster face of the engine."""
