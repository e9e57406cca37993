"""A transaction of pyiceberg that is tried once and looks at the table's metadata without copying it each time.

Import it inside functions: it imports pyiceberg.
"""

from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableUpdate, update_table_metadata

_NO_RETRIES = {"commit.retry.num-retries": "0"}


class SingleAttempt(Transaction):
    """One attempt to commit, whatever the table's properties say.

    The library's own retry would commit on top of a snapshot that nobody has looked at. The metadata with the staged
    updates is made once per update: the library makes a deep copy each time it is asked for, 18 a commit, which is 200
    ms of 250 at 100 snapshots.
    """

    def __init__(self, table: Table) -> None:
        # in memory only: what the table says to other writers is left alone
        table.metadata.properties.update(_NO_RETRIES)
        super().__init__(table)
        self._seen: tuple[tuple[TableUpdate, ...], TableMetadata] = (self._updates, table.metadata)

    @property
    def table_metadata(self) -> TableMetadata:
        """The metadata with what is staged."""
        updates, metadata = self._seen
        if updates is not self._updates:
            self._seen = (self._updates, metadata := update_table_metadata(self._table.metadata, self._updates))
        return metadata
