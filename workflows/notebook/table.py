"""A small table that shows itself; its rows are plain dictionaries, ready for any data-frame library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from instruments import cards


@dataclass(frozen=True, slots=True)
class Table:
    """Rows by column name; a row may lack a column.

    >>> table = Table("Two runs", ({"policy": "raster", "recall": 0.25}, {"policy": "census", "recall": 0.5}))
    >>> table["recall"].tolist(), len(table)
    ([0.25, 0.5], 2)
    """

    title: str
    rows: tuple[Mapping[str, Any], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the order they first appear."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, column: str) -> np.ndarray:
        """(n,) values of a column; NaN where a number is missing. Raises KeyError naming the columns there are."""
        if column not in self.columns:
            raise KeyError(f"no column {column!r}; there are {', '.join(self.columns)}")
        values = [row.get(column) for row in self.rows]
        if all(value is None or isinstance(value, int | float) for value in values):
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        return np.array(values, dtype=object)

    def __str__(self) -> str:
        cells = [list(self.columns), *([cards.words(row.get(name, "")) for name in self.columns] for row in self.rows)]
        widths = [max(len(line[n]) for line in cells) for n in range(len(self.columns))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        return "\n".join([self.title, *lines])

    def _repr_html_(self) -> str:
        rows = [[row.get(name, "") for name in self.columns] for row in self.rows]
        return cards.card(self.title, "", cards.table(self.columns, rows))
