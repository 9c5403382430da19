"""All checks in their order, and one run of them on an instrument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from instruments.conformance.bench import Bench
from instruments.conformance.check import Check, judged
from instruments.conformance.checks.calibration import CALIBRATION
from instruments.conformance.checks.counts import COUNTS
from instruments.conformance.checks.exposures import DWELL, FRAME, KNOWN_ACTION
from instruments.conformance.checks.metadata import METADATA
from instruments.conformance.checks.motion import BEAM_SHIFT, STAGE
from instruments.conformance.checks.read_back import READ_BACK
from instruments.conformance.checks.refusals import OUT_OF_RANGE, UNKNOWN_CONTROL
from instruments.conformance.checks.stopping import BLANK, STOP_LATENCY
from instruments.conformance.checks.teardown import TEARDOWN
from instruments.conformance.checks.tilts import STAGE_TILT
from instruments.conformance.checks.transport import (
    CALL_AFTER_TIMEOUT,
    CONCURRENT_CLIENTS,
    LOST_ANSWER,
    MUTE_SERVER,
    SERVER_KILLED,
)
from instruments.conformance.findings import Finding, Report
from instruments.conformance.frames import SHOTS, TOGETHER, Shot
from instruments.errors import ConfigurationError

CHECKS: Final[tuple[Check, ...]] = (
    FRAME, OUT_OF_RANGE, UNKNOWN_CONTROL, COUNTS, READ_BACK, METADATA, KNOWN_ACTION, DWELL, BEAM_SHIFT, STAGE,
    STAGE_TILT, CALIBRATION, BLANK, STOP_LATENCY, CONCURRENT_CLIENTS, MUTE_SERVER, CALL_AFTER_TIMEOUT, LOST_ANSWER,
    SERVER_KILLED, TEARDOWN,
)  # fmt: skip


def check_named(name: str) -> Check:
    """The check of that name. Raises ConfigurationError."""
    found = {check.name: check for check in CHECKS}
    if name not in found:
        raise ConfigurationError(f"no check is called {name!r}; there are {', '.join(found)}")
    return found[name]


def shots_of(checks: Sequence[Check]) -> list[Shot]:
    """The exposures these checks need together, each once, with those that are made along with them."""
    wanted = {shot for check in checks for shot in check.shots}
    wanted |= {shot for group in TOGETHER if wanted & set(group) for shot in group}
    return [shot for shot in SHOTS if shot in wanted]


def run(bench: Bench, checks: Sequence[Check] = CHECKS, tell: Callable[[Finding], object] = bool) -> Report:
    """The findings of these checks; each is told when it is there. Raises what opening the instrument raises."""
    started_at = datetime.now(UTC)
    capabilities = bench.capabilities
    electrons, dose = bench.worst(shots_of(checks))
    findings: list[Finding] = []
    for check in checks:
        findings.append(judged(check, bench))
        tell(findings[-1])
    return Report(
        instrument=bench.target.name,
        simulated=capabilities.simulated,
        contract_version=capabilities.schema_version,
        stempilot=version("stempilot"),
        started_at=started_at.isoformat(),
        electrons=electrons,
        max_dose_e_per_a2=dose,
        quirks=capabilities.quirks,
        findings=tuple(findings),
    )
