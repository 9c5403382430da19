"""The table of docs/conformance.md, from reports that tests kept.

`python -m tests.integration.instruments.conformance_table FOLDER`
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from instruments.conformance import CHECKS, Report

PAGE = Path(__file__).parents[3] / "docs" / "conformance.md"
SAID_ABOVE = {
    "its target names no server that the kit may interfere with (it is not `Served`)": "not `Served`",
    "one client is declared, and its target names no server that a second one could reach": "not `Served`",
    "this instrument declares no tilt of the stage that can be set and is read back": "no tilt",
    "the state says blanked, after blank and after a frame; whether the detectors are dark then nobody sees: "
    "it takes no dark frames (`acquire_dark`)": "no dark frames",
    "mode 'no-mode' is not one of this instrument's": "it takes no frames",
    "this instrument declares no mode: it takes no frames": "it takes no frames",
}
BEGIN, END = "<!-- the table of adapters -->\n", "<!-- its end -->\n"


def row(report: Report) -> str:
    """One instrument: what passed, what it declares, what could not be judged and why."""
    passed = sum(finding.verdict == "passed" for finding in report.findings)
    quirks = ", ".join(f"`{one.check}`" for one in report.findings if one.verdict == "declared quirk")
    checks_by_reason: dict[str, list[str]] = {}
    for finding in report.findings:
        if finding.verdict in ("skipped", "failed"):
            why = re.sub(r"^no frame '\w+': |^the facility's envelope forbids it: ", "", finding.found)
            why = re.sub(r"conform-\w+-\d+ |127.0.0.1:\d+", "", why).rstrip(": ")
            why = why if finding.verdict == "skipped" else f"FAILED, {why}"
            why = SAID_ABOVE.get(why, why)
            checks_by_reason.setdefault(why, []).append(f"`{finding.check}`")
    reasons = "<br>".join(f"{', '.join(names)}: {why}" for why, names in checks_by_reason.items())
    return f"| {report.instrument} | {passed} | {quirks} | {reasons.replace('|', '/')} |\n"


def table(folder: Path) -> str:
    """All reports of a folder, by name."""
    reports = [Report.model_validate_json(path.read_text()) for path in sorted(folder.glob("*.json"))]
    head = f"| instrument | passed, of {len(CHECKS)} | declared quirk | not judged |\n|---|---|---|---|\n"
    return head + "".join(map(row, reports))


def main() -> None:
    """Put it between its marks in the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}{table(Path(sys.argv[1]))}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
