"""Questions: what is asked of a specimen, wired from forward model to policy."""

from workflows.questions.question import Question, Setting
from workflows.questions.registry import build_question

__all__ = ["Question", "Setting", "build_question"]
