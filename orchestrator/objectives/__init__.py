"""What an experiment asks, and how far it is answered."""

from orchestrator.objectives.objective import FrameFacts, Objective, Score

__all__ = ["FrameFacts", "Objective", "Score"]
