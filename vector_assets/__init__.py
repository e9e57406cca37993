"""Flink SQL, YAML and CALL scripts as Dagster assets; every micro-batch lands exactly once."""

__version__ = "0.1.0"
