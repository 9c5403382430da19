"""Objects as small HTML cards for notebooks: escaped, without colours of their own, so light and dark pages both work.

This package stands alone, so it has its own few lines of HTML. Neighbour: `plotting` draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite
from typing import Any

_CELL = "text-align:left;vertical-align:top;padding:.15em .9em .15em 0;border-bottom:1px solid rgba(128,128,128,.35)"
_LONGEST_TEXT = 160


def words(value: Any) -> str:
    """A value as a person reads it, in one line.

    >>> words({"x_nm": 1 / 3, "mode": "maadf"}), words((2.0, 0.5))
    ('x_nm 0.3333, mode maadf', '2, 0.5')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if isfinite(value) else "not finite"
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {words(item)}" for key, item in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(words(item) for item in value)
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def card(title: str, subtitle: str, *tables: str) -> str:
    """A heading and what stands below it; `tables` are HTML, the texts are not."""
    aside = f' <span style="opacity:.7">{escape(subtitle)}</span>' if subtitle else ""
    return f'<div style="margin:.4em 0"><strong>{escape(title)}</strong>{aside}{"".join(tables)}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows under a header; without a row, nothing."""
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(words(value))}</td>' for value in row) + "</tr>" for row in rows
    )
    if not body:
        return ""
    head = "".join(f'<th style="{_CELL};opacity:.7;font-weight:600">{escape(name)}</th>' for name in header)
    start = '<table style="border-collapse:collapse;margin:.3em 0"><thead>'
    return f"{start}<tr>{head}</tr></thead><tbody>{body}</tbody></table>"
