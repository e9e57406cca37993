"""Random changes with random DDL of one MySQL table, and the comparison of a target with it."""

import random
from collections.abc import Callable, Sequence
from typing import Any

VECTOR = "VARCHAR(99)"
"""A text that says a vector of three dimensions."""
TYPES = {
    "INT": lambda rng: str(rng.randrange(-1000, 1000)),
    "BIGINT": lambda rng: str(rng.randrange(-(10**15), 10**15)),
    "VARCHAR(30)": lambda rng: f"'ä{rng.randrange(10**6)}'",
    "VARCHAR(60)": lambda rng: f"'{'x' * rng.randrange(60)}'",
    "DECIMAL(10, 2)": lambda rng: f"{rng.randrange(10**6)}.{rng.randrange(10)}5",
    "DECIMAL(14, 2)": lambda rng: f"{rng.randrange(10**11)}.25",
    VECTOR: lambda rng: f"'{{{rng.randrange(9)},{rng.randrange(9)}.5,1}}'",
    "DATE": lambda rng: f"'20{rng.randrange(10, 30)}-0{rng.randrange(1, 10)}-1{rng.randrange(10)}'",
    "DOUBLE": lambda rng: f"{rng.randrange(1000)}.5",
}
WIDER = {"INT": "BIGINT", "VARCHAR(30)": "VARCHAR(60)", "DECIMAL(10, 2)": "DECIMAL(14, 2)"}
NAMES = [f"c{number}" for number in range(8)]


class Model:
    """Draws transactions and DDL; `columns` are names and types beside `id`, `nulls` how many values are null."""

    def __init__(
        self, run: Callable[[str], Any], seed: int, *, ddl: float = 0.03, keys: int = 120, nulls: float = 0.15,
        columns: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.rng = random.Random(seed)
        self.run, self.ddl, self.keys, self.nulls = run, ddl, keys, nulls
        self.columns: dict[str, str] = columns or {"c0": "INT", "c1": "VARCHAR(30)"}
        self.statements: list[str] = []
        listed = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
        run(f"CREATE TABLE t (id INT PRIMARY KEY, {listed})")

    def step(self) -> None:
        """One transaction, or one DDL."""
        if self.rng.random() < self.ddl:
            self.alter()
            return
        self.run("BEGIN")
        for _ in range(self.rng.randint(1, 4)):
            self._write()
        self.run("ROLLBACK" if self.rng.random() < 0.05 else "COMMIT")

    def _value(self, kind: str) -> str:
        return "NULL" if self.rng.random() < self.nulls else TYPES[kind](self.rng)

    def _write(self) -> None:
        here, what = self.rng.randrange(self.keys), self.rng.random()
        if what < 0.45:
            names = ", ".join(["id", *self.columns])
            values = ", ".join([str(here), *(self._value(kind) for kind in self.columns.values())])
            self.run(f"REPLACE INTO t ({names}) VALUES ({values})")
        elif what < 0.75 and self.columns:
            name = self.rng.choice(list(self.columns))
            self.run(
                f"UPDATE t SET {name} = {self._value(self.columns[name])} WHERE id % 7 = {here % 7} AND id < {here}"
            )
        elif what < 0.85:
            self.run(f"UPDATE IGNORE t SET id = {self.rng.randrange(self.keys)} WHERE id = {here}")
        else:
            self.run(f"DELETE FROM t WHERE id = {here}")

    def alter(self) -> None:
        """One ALTER TABLE."""
        free = [name for name in NAMES if name not in self.columns]
        names = list(self.columns)
        kinds = ["add"] * (len(names) < 6) * 3 + ["drop", "rename", "rename", "swap", "widen", "take"] * (
            len(names) > 1
        )
        what = self.rng.choice(kinds or ["add"])
        if what == "add":
            name, kind = self.rng.choice(free), self.rng.choice([kind for kind in TYPES if kind != VECTOR])
            text, self.columns[name] = f"ADD COLUMN {name} {kind}", kind
        elif what == "drop":
            name = self.rng.choice(names)
            text = f"DROP COLUMN {name}"
            del self.columns[name]
        elif what == "rename":
            old, new = self.rng.choice(names), self.rng.choice(free)
            kind = self.columns.pop(old)
            text = self.rng.choice([f"RENAME COLUMN {old} TO {new}", f"CHANGE COLUMN {old} {new} {kind}"])
            self.columns[new] = kind
        elif what == "swap":
            one, other = self.rng.sample(names, 2)
            text = f"RENAME COLUMN {one} TO {other}, RENAME COLUMN {other} TO {one}"
            self.columns[one], self.columns[other] = self.columns[other], self.columns[one]
        elif what == "take":
            gone, old = self.rng.sample(names, 2)
            text = f"DROP COLUMN {gone}, RENAME COLUMN {old} TO {gone}"
            self.columns[gone] = self.columns.pop(old)
        else:
            able = [name for name in names if self.columns[name] in WIDER]
            if not able:
                return
            name = self.rng.choice(able)
            self.columns[name] = WIDER[self.columns[name]]
            text = f"MODIFY COLUMN {name} {self.columns[name]}"
        self.statements.append(text)
        self.run(f"ALTER TABLE t {text}")


def assert_equal(ours: Sequence[tuple[Any, ...]], theirs: Sequence[tuple[Any, ...]], model: Model) -> None:
    """Rows of target and source, and what was done if they differ."""
    wrong = [(a, b) for a, b in zip(ours, theirs, strict=False) if a != b]
    assert (len(ours), wrong[:3]) == (len(theirs), []), f"after {model.statements[-12:]}"
