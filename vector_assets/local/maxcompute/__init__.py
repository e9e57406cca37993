"""A MaxCompute server for one machine: the protocol of the service as pyodps speaks it, rows and SQL by DuckDB."""
