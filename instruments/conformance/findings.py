"""What a check found, and all of it together as a report: a table for a person, records for a program."""

from __future__ import annotations

from collections import Counter
from textwrap import wrap
from typing import Final, Literal

from pydantic import Field

from instruments.models import Record

Verdict = Literal["passed", "failed", "skipped", "declared quirk"]
MARKS: Final[dict[Verdict, str]] = {"passed": "ok", "failed": "FAILED", "skipped": "skipped", "declared quirk": "quirk"}
_WIDTH: Final = 110
_NAME_WIDTH: Final = 20
_MARK_WIDTH: Final = 8


class Measured(Record):
    """One measured number, its unit, and the range it had to lie in (None: no bound on that side)."""

    name: str
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None

    @property
    def is_within(self) -> bool:
        """Whether it keeps to its bounds."""
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g} {self.unit}".rstrip()


class Finding(Record):
    """The verdict of one check: what was done, what was found, what to do about it."""

    check: str
    verdict: Verdict
    does: str = Field(description="what the check does to the microscope")
    exposes: bool = Field(description="whether it puts electrons on the specimen")
    found: str
    cure: str | None = None
    measured: tuple[Measured, ...] = ()


class Report(Record):
    """Every finding of one run of the kit on one instrument."""

    schema_version: int = 1
    instrument: str
    simulated: bool
    contract_version: int = Field(description="`schema_version` of the instrument's capabilities")
    stempilot: str
    started_at: str = Field(description="UTC, ISO 8601")
    electrons: float = Field(description="put on the specimen by this run, as planned at worst")
    max_dose_e_per_a2: float = Field(description="on the most exposed 1 nm2 of the specimen, as planned at worst")
    consented_by: str = Field(default="", description="who was at a real microscope and let it be tried")
    quirks: tuple[str, ...] = ()
    findings: tuple[Finding, ...]

    @property
    def has_failed(self) -> bool:
        """Whether any check failed."""
        return any(finding.verdict == "failed" for finding in self.findings)

    def finding(self, check: str) -> Finding:
        """The one of this check. Raises KeyError."""
        return {finding.check: finding for finding in self.findings}[check]

    @property
    def summary(self) -> str:
        """How many of each verdict, in one line."""
        counts = Counter(finding.verdict for finding in self.findings)
        return ", ".join(f"{counts[verdict]} {verdict}" for verdict in MARKS if counts[verdict])

    def table(self) -> str:
        """The report in plain text, one check after another."""
        kind = "simulated" if self.simulated else "real"
        kind += f", let by {self.consented_by}" if self.consented_by else ""
        lines = [
            f"{self.instrument} ({kind}), contract {self.contract_version}: {self.summary}",
            f"{self.electrons:.3g} electrons at most, {self.max_dose_e_per_a2:.3g} e/A2 on the worst spot",
            "",
        ]
        for finding in self.findings:
            lines += _rows(finding)
        return "\n".join(lines)


def _rows(finding: Finding) -> list[str]:
    text = [finding.found]
    if finding.measured:
        text.append("; ".join(map(str, finding.measured)))
    if finding.cure and finding.verdict == "failed":
        text.append(f"-> {finding.cure}")
    indent = " " * (_NAME_WIDTH + _MARK_WIDTH)
    body = [line for part in text for line in wrap(part, _WIDTH - len(indent))]
    head = f"{finding.check:<{_NAME_WIDTH}}{MARKS[finding.verdict]:<{_MARK_WIDTH}}"
    return [head + body[0], *(indent + line for line in body[1:])]
