"""Objects as small HTML cards for notebooks: escaped, without colours of their own, so light and dark pages both work.

Neighbour: `plotting` draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite
from typing import Any

_RULE = "border-bottom:1px solid rgba(128,128,128,.35)"
_CELL = f"text-align:left;vertical-align:top;padding:.15em .9em .15em 0;{_RULE}"
_LONGEST_TEXT = 160


def words(value: Any) -> str:
    """A value as a person reads it, in one line.

    >>> words(0.1 + 0.2), words(23_400_000.0), words((1, 2)), words(None)
    ('0.3', '2.34e+07', '1, 2', '-')
    """
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if isfinite(value) else "not finite"
        case Mapping():
            return ", ".join(f"{key} {words(item)}" for key, item in value.items()) or "-"
        case list() | tuple() | set() | frozenset():
            return ", ".join(words(item) for item in value) or "-"
        case _:
            text = str(value)
            return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def card(title: str, subtitle: str, *parts: str) -> str:
    """A heading and what stands below it; `parts` are HTML, the texts are not."""
    aside = f' <span style="opacity:.7">{escape(subtitle)}</span>' if subtitle else ""
    return f'<div style="margin:.4em 0"><strong>{escape(title)}</strong>{aside}{"".join(parts)}</div>'


def facts(rows: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    """Names and values, a line each."""
    pairs = rows.items() if isinstance(rows, Mapping) else rows
    body = "".join(
        f'<tr><td style="{_CELL};opacity:.7">{escape(words(name))}</td>'
        f'<td style="{_CELL}">{escape(words(value))}</td></tr>'
        for name, value in pairs
    )
    return f'<table style="border-collapse:collapse;margin:.3em 0"><tbody>{body}</tbody></table>'


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows under a header."""
    head = "".join(f'<th style="{_CELL};opacity:.7;font-weight:600">{escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(words(value))}</td>' for value in row) + "</tr>" for row in rows
    )
    return (
        '<table style="border-collapse:collapse;margin:.3em 0">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def picture(png: bytes, alt: str, width_px: int) -> str:
    """An image inside the page."""
    from base64 import b64encode

    data = b64encode(png).decode("ascii")
    return f'<img alt="{escape(alt)}" style="display:block;width:{width_px}px" src="data:image/png;base64,{data}">'


def note(text: str) -> str:
    """A sentence below."""
    return f'<div style="opacity:.8">{escape(text)}</div>'
