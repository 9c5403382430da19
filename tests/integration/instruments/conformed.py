"""Every check of the kit on one instrument of these tests; the report is kept for the table of the documentation.

`STEMPILOT_CONFORMANCE_REPORTS=FOLDER` keeps them; `conformance_table` beside this makes the table of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from instruments.conformance import CHECKS, Bench, Conditions, Finding, Report, Target, run

KEPT_IN = "STEMPILOT_CONFORMANCE_REPORTS"
# Seconds for a machine that does something else meanwhile, or nothing for a while; waited where something is wrong.
# What a test says itself stays.
_PATIENT = {"patience_s": 120.0, "stop_margin_s": 12.0, "stop_exposure_s": 40.0}
_WAIT_FOR_A_DEADLINE = ("mute_server", "call_after_timeout")


def conformed(
    target: Target,
    conditions: Conditions,
    name: str = "",
    *,
    without: Mapping[str, str] = {},
    hasty: Target | None = None,
) -> Report:
    """What the kit finds; nothing may have failed. `name` is the row's in the table, if not the target's.

    `without`: checks that are left out, and why. `hasty`: the same target with an adapter that waits for answers as
    long as a test can, for the checks that let it wait in vain; all others have one with the patience of `target`.
    """
    unsaid = {field: value_s for field, value_s in _PATIENT.items() if field not in conditions.model_fields_set}
    patient = conditions.model_copy(update=unsaid)
    wanted = [check for check in CHECKS if check.name not in without]
    later = [check for check in wanted if hasty is not None and check.name in _WAIT_FOR_A_DEADLINE]
    with Bench(target, patient) as bench:
        report = run(bench, [check for check in wanted if check not in later])
    if hasty is not None:
        with Bench(hasty, patient) as bench:
            found = {one.check: one for one in (*report.findings, *run(bench, later).findings)}
        report = report.model_copy(update={"findings": tuple(found[check.name] for check in wanted)})
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
