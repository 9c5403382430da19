"""Questions by the name of their objective."""

from __future__ import annotations

from orchestrator.errors import SpecError
from workflows.questions.brightness import build_brightness
from workflows.questions.element_map import build_element_map
from workflows.questions.focus import build_focus
from workflows.questions.question import Question, QuestionBuilder, Setting


def _census(setting: Setting) -> Question:
    from workflows.questions.census import build_census  # loads the simulator, which few processes need

    return build_census(setting)


QUESTIONS: dict[str, QuestionBuilder] = {
    "brightness": build_brightness,
    "defect_census": _census,
    "element_map": build_element_map,
    "focus": build_focus,
}


def build_question(setting: Setting) -> Question:
    """The question of a spec. Raises SpecError for an objective nobody knows."""
    name = setting.spec.objective.name
    if name not in QUESTIONS:
        raise SpecError(f"objective.name: {name!r} is not known; known: {', '.join(sorted(QUESTIONS))}")
    return QUESTIONS[name](setting)
