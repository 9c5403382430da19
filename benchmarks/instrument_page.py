"""The table of `benchmarks/instruments.py` as a page of the documentation shows it, between two marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- the table of costs -->\n", "<!-- the end of costs -->\n"
COLUMNS = ("adapter", "reached", "read the state", "a command", "a frame", "rate of the way", "stop", "connect again")


def put(document: dict[str, Any], page: Path) -> None:
    """Write what was measured between the marks of the page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}{table(document)}{END}{after}", encoding="utf-8")


def table(document: dict[str, Any]) -> str:
    """Smallest times over the bare client, and whether the goals were met."""
    rows = {name: row for name, row in document["rows"].items() if "skipped" not in row}
    loads = [row["load_1_min"] for row in rows.values()]
    lines = [
        f"Smallest times in ms, on {document['machine']['cpus']} cores at a load of {min(loads):g} to {max(loads):g}:",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join((name, row['way'], *_cells(row)))} |" for name, row in rows.items()),
        "",
        f"Goals: {_goals(rows)}.",
    ]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    frame, goals = row.get("frame"), row["goals"]
    over = [f"{max(row[what]['overhead_min_ms'], 0.0):.2f}" for what in ("read", "command")]
    return (
        *over,
        f"{max(frame['overhead_min_ms'], 0.0):.1f} ({frame['frame_mb']:.3g} MB)" if frame else "",
        _rate(frame) if frame and "frame_mb_per_s" in goals else "",
        f"{row['stop']['stop_min_ms']:.1f}" if "stop" in row else "",
        f"{row['reconnect']['min_ms']:.1f}" if "reconnect" in row else "",
    )


def _rate(frame: dict[str, Any]) -> str:
    is_told = frame["overhead_min_ms"] > 0
    return f"{frame['way_mb_per_s']:.0f} MB/s" if is_told else "lost in the load"


def _goals(rows: dict[str, dict[str, Any]]) -> str:
    """How many rows met each goal, and which did not."""
    words: list[str] = []
    for goal, unit in (("command_overhead_ms", "ms a command at most"), ("frame_mb_per_s", "MB/s of frames at least")):
        judged = {name: row["goals"][goal] for name, row in rows.items() if goal in row["goals"]}
        asked = " and ".join(f"{value:g}" for value in sorted({one["goal"] for one in judged.values()}))
        missed = ", ".join(f"{name} {one['measured']:g}" for name, one in judged.items() if not one["met"])
        met = sum(bool(one["met"]) for one in judged.values())
        words.append(f"{asked} {unit}: met by {met} of {len(judged)}" + (f", not by {missed}" if missed else ""))
    return "; ".join(words)
