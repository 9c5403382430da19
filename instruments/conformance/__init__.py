"""The conformance kit: what every instrument must do, tried out on one; a report says what it does and what not."""

from instruments.conformance.bench import Bench
from instruments.conformance.check import Check, judged
from instruments.conformance.conditions import Conditions
from instruments.conformance.findings import Finding, Measured, Report
from instruments.conformance.kit import CHECKS, check_named, run
from instruments.conformance.target import AdapterTarget, CountsExposures, OpenedTarget, Served, Target

__all__ = [
    "CHECKS",
    "AdapterTarget",
    "Bench",
    "Check",
    "Conditions",
    "CountsExposures",
    "Finding",
    "Measured",
    "OpenedTarget",
    "Report",
    "Served",
    "Target",
    "check_named",
    "judged",
    "run",
]
