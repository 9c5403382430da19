"""What is kept: a database of experiments, events, decisions and acquisitions, and one NeXus file for each frame."""

from orchestrator.catalogue.catalogue import Catalogue, utc_now
from orchestrator.catalogue.experiment_rows import LATEST
from orchestrator.catalogue.folder import holder
from orchestrator.catalogue.nexus import FrameRecord
from orchestrator.catalogue.rows import DecisionRow, ExperimentRow, Intent, RecoveryReport, StoredFrame

__all__ = [
    "LATEST",
    "Catalogue",
    "DecisionRow",
    "ExperimentRow",
    "FrameRecord",
    "Intent",
    "RecoveryReport",
    "StoredFrame",
    "holder",
    "utc_now",
]
