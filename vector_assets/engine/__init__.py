"""Nouns, planning and the loop; imports neither Dagster nor a connector."""
