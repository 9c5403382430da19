"""The queue of experiments: who waits for which instrument and why, who has it, and with which right to write."""

from orchestrator.errors import Conflict, LeaseLost, PreconditionFailed
from orchestrator.queue.entries import Claim, InstrumentLease, QueueEntry
from orchestrator.queue.queue import ExperimentQueue
from orchestrator.queue.transitions import ACTIONS, FINAL, STATUSES, TRANSITIONS, WAITING, possible_actions

__all__ = [
    "ACTIONS",
    "FINAL",
    "STATUSES",
    "TRANSITIONS",
    "WAITING",
    "Claim",
    "Conflict",
    "ExperimentQueue",
    "InstrumentLease",
    "LeaseLost",
    "PreconditionFailed",
    "QueueEntry",
    "possible_actions",
]
