"""Every check of the kit on one instrument of these tests; the report is kept for the table of the documentation.

`STEMPILOT_CONFORMANCE_REPORTS=FOLDER` keeps them; `conformance_table` beside this makes the table of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from instruments.conformance import CHECKS, Bench, Conditions, Finding, Report, Target, run

KEPT_IN = "STEMPILOT_CONFORMANCE_REPORTS"


def conformed(target: Target, conditions: Conditions, name: str = "", *, without: Mapping[str, str] = {}) -> Report:
    """What the kit finds; nothing may have failed. `name` is the row's in the table, if not the target's.

    `without`: checks that are left out, and why.
    """
    with Bench(target, conditions) as bench:
        report = run(bench, [check for check in CHECKS if check.name not in without])
    keep(report, name or target.name, without)
    assert not report.has_failed, report.table()
    return report


def keep(report: Report, name: str, without: Mapping[str, str] = {}) -> None:
    """For the table, where a folder is named for it."""
    if folder := os.environ.get(KEPT_IN):
        left = (
            Finding(check=check, verdict="skipped", does="", exposes=False, found=f"left out: {why}")
            for check, why in without.items()
        )
        kept = report.model_copy(update={"instrument": name, "findings": (*report.findings, *left)})
        (Path(folder) / f"{name.replace(' ', '-')}.json").write_text(kept.model_dump_json(indent=1), encoding="utf-8")


def names(report: Report, verdict: str) -> set[str]:
    """The checks that ended so."""
    return {finding.check for finding in report.findings if finding.verdict == verdict}
