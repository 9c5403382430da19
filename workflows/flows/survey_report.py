"""The one page of a survey, filled from the catalogue and written beside the reports of its squares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.catalogue import Catalogue, ExperimentRow
from orchestrator.errors import OrchestratorError
from orchestrator.report.survey_page import SquareOnPage, SurveyOnPage, render_survey
from orchestrator.survey_spec import OVERVIEW_NAME, SurveySpec
from workflows.flows.survey_tables import SquareRow, all_rows, children_by_square, overlooked, square_rows

SURVEY_OPTION = "survey"


def is_survey(row: ExperimentRow) -> bool:
    """Whether this row is a survey, whose experiments are its children."""
    return SURVEY_OPTION in row.options


def write_survey_page(catalogue: Catalogue, survey_id: str) -> Path:
    """The page as `report.html` in the survey's folder; its path. Raises OrchestratorError if it cannot write."""
    row = catalogue.experiment(survey_id)
    page = render_survey(survey_on_page(catalogue, row))
    path = catalogue.data_folder / "experiments" / row.id / "report.html"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OrchestratorError(f"{path} cannot be written: {error}; the experiments themselves are stored") from error
    return path


def survey_on_page(catalogue: Catalogue, row: ExperimentRow) -> SurveyOnPage:
    """Everything the page shows."""
    plan = SurveySpec.checked(dict(row.options[SURVEY_OPTION]))
    rows = square_rows(catalogue, row.id, plan)
    images = _overview_images(catalogue, row.id, plan)
    made = all_rows(catalogue, row.id)
    return SurveyOnPage(
        name=row.name,
        id=row.id,
        status=row.status,
        reason=row.reason,
        created_at=row.created_at.isoformat(timespec="seconds").replace("T", " "),
        squares=[_square(catalogue, one, images.get(one.name)) for one in rows if one.name != OVERVIEW_NAME],
        electrons=sum(one.electrons for one in made),
        instrument_time_s=sum(one.instrument_time_s for one in made),
        limits=plan.total_budget.model_dump(),
    )


def _square(catalogue: Catalogue, row: SquareRow, image: np.ndarray | None) -> SquareOnPage:
    report = catalogue.data_folder / "experiments" / str(row.experiment_id) / "report.html"
    known: dict[str, Any] = {name: getattr(row, name) for name in SquareOnPage.__dataclass_fields__ if name in _SAME}
    return SquareOnPage(**known, link=f"../{row.experiment_id}/report.html" if report.is_file() else None, image=image)


_SAME = frozenset(SquareRow.__dataclass_fields__) - {"dose_max_e_per_a2", "most_electrons", "most_instrument_time_s"}


def _overview_images(catalogue: Catalogue, survey_id: str, plan: SurveySpec) -> dict[str, np.ndarray]:
    """Counts of the first detector of each square's overview frame, (rows, columns)."""
    overview = children_by_square(catalogue, survey_id).get(OVERVIEW_NAME)
    if overview is None:
        return {}
    stored = {frame.id for frame in catalogue.frames(overview.id)}
    images: dict[str, np.ndarray] = {}
    for name, seen in overlooked(catalogue, overview, plan).items():
        if seen.frame_id in stored:
            frame = catalogue.load_frame(str(seen.frame_id))
            images[name] = frame.total(frame.mode.detectors[0].name).astype(float)
    return images
