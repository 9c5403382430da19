"""The report of an experiment: `render_report(ReportData) -> HTML`, one self-contained page."""

from orchestrator.report.render import render_report
from orchestrator.report.report_data import (
    Evaluation,
    ExperimentFacts,
    LedgerShare,
    ReportData,
    ReportDecision,
    ReportFrame,
    Spending,
)

__all__ = [
    "Evaluation",
    "ExperimentFacts",
    "LedgerShare",
    "ReportData",
    "ReportDecision",
    "ReportFrame",
    "Spending",
    "render_report",
]
