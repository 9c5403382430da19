"""Truth and baselines, after the run: the only callers of a world's `truth()`."""

from workflows.evaluation.baselines import baseline_plans, run_all
from workflows.evaluation.rehearsal import Rehearsal, rehearse

__all__ = ["Rehearsal", "baseline_plans", "rehearse", "run_all"]
