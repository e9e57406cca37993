"""Sets of global transaction ids, as MariaDB and MySQL spell them. Pure.

MariaDB: the last one of each domain, `0-1-100,1-3-7` (domain, server, number). MySQL: intervals of each server,
`uuid:1-5:7,uuid2:1`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Interval = tuple[int, int]
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)


@dataclass(frozen=True, slots=True)
class Gtids:
    """Transactions that have been read: of MariaDB `domains`, of MySQL `servers` with closed intervals."""

    domains: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    servers: Mapping[str, tuple[Interval, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: object, *, is_mariadb: bool = False) -> "Gtids":
        """The set that a server spells so.

        Raises:
            ValueError: it is spelled otherwise.
        """
        parts = [part.strip() for part in str(text or "").replace("\n", "").split(",") if part.strip()]
        if is_mariadb or any(part.count("-") == 2 and ":" not in part for part in parts):
            triples = [part.split("-") for part in parts]
            return cls(domains={domain: (server, int(number)) for domain, server, number in triples})
        servers: dict[str, tuple[Interval, ...]] = {}
        for part in parts:
            uuid, *ranges = part.split(":")
            if not ranges or _UUID.fullmatch(uuid) is None:
                raise ValueError(f"not a GTID: {part}")
            spans = [tuple(map(int, each.split("-"))) for each in ranges]
            servers[uuid.lower()] = _joined([*servers.get(uuid.lower(), ()), *((s[0], s[-1]) for s in spans)])
        return cls(servers=servers)

    def __str__(self) -> str:
        ours = [f"{domain}-{server}-{number}" for domain, (server, number) in sorted(self.domains.items())]
        theirs = [
            f"{uuid}:" + ":".join(f"{low}-{high}" if high > low else f"{low}" for low, high in spans)
            for uuid, spans in sorted(self.servers.items())
        ]
        return ",".join([*ours, *theirs])

    def __bool__(self) -> bool:
        return bool(self.domains or self.servers)

    def plus(self, gtid: str) -> "Gtids":
        """The set with one more transaction, `0-1-100` or `uuid:5`."""
        if ":" not in gtid:
            domain, server, number = gtid.split("-")
            return Gtids(domains={**self.domains, domain: (server, int(number))})
        uuid, _, number = gtid.lower().rpartition(":")
        spans = _joined([*self.servers.get(uuid, ()), (int(number), int(number))])
        return Gtids(servers={**self.servers, uuid: spans})

    def has(self, gtid: str) -> bool:
        """True when the set holds the transaction."""
        if ":" not in gtid:
            domain, _, number = gtid.split("-")
            return domain in self.domains and self.domains[domain][1] >= int(number)
        uuid, _, number = gtid.lower().rpartition(":")
        return any(low <= int(number) <= high for low, high in self.servers.get(uuid, ()))

    def holds(self, other: "Gtids") -> bool:
        """True when every transaction of the other set is in this one."""
        return other.beyond(self) == 0

    def beyond(self, other: "Gtids") -> int:
        """How many transactions of this set are not in the other one."""
        ours = sum(max(n - other.domains.get(d, ("", 0))[1], 0) for d, (_, n) in self.domains.items())
        for uuid, spans in self.servers.items():
            theirs = other.servers.get(uuid, ())
            shared = sum(max(min(a, c) - max(b, d) + 1, 0) for b, a in spans for d, c in theirs)
            ours += sum(high - low + 1 for low, high in spans) - shared
        return ours


def _joined(spans: list[Interval]) -> tuple[Interval, ...]:
    found: list[Interval] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return tuple(found)
