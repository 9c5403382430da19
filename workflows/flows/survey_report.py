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
from workflows.flows.survey_tables import SquareRow, square_rows

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
    overview = next((one for one in rows if one.name == OVERVIEW_NAME), None)
    images = _overview_images(catalogue, overview.experiment_id, plan) if overview and overview.experiment_id else {}
    return SurveyOnPage(
        name=row.name,
        id=row.id,
        status=row.status,
        reason=row.reason,
        created_at=row.created_at.isoformat(timespec="seconds").replace("T", " "),
        squares=[_square(catalogue, one, images.get(one.name)) for one in rows if one.name != OVERVIEW_NAME],
        electrons=sum(one.electrons for one in rows),
        instrument_time_s=sum(one.instrument_time_s for one in rows),
        limits=plan.total_budget.model_dump(),
    )


def _square(catalogue: Catalogue, row: SquareRow, image: np.ndarray | None) -> SquareOnPage:
    report = catalogue.data_folder / "experiments" / str(row.experiment_id) / "report.html"
    known: dict[str, Any] = {name: getattr(row, name) for name in SquareOnPage.__dataclass_fields__ if name in _SAME}
    return SquareOnPage(**known, link=f"../{row.experiment_id}/report.html" if report.is_file() else None, image=image)


_SAME = frozenset(SquareRow.__dataclass_fields__) - {"dose_max_e_per_a2", "most_electrons", "most_instrument_time_s"}


def _overview_images(catalogue: Catalogue, overview_id: str, plan: SurveySpec) -> dict[str, np.ndarray]:
    """Counts of the first detector of each square's overview frame, (rows, columns)."""
    names = {(round(square.x_nm, 1), round(square.y_nm, 1)): square.name for square in plan.places}
    images: dict[str, np.ndarray] = {}
    for stored in catalogue.frames(overview_id):
        frame = catalogue.load_frame(stored.id)
        command = frame.requested
        x_nm, y_nm = (
            command.stage.x_nm + command.scan.beam_shift_x_nm, command.stage.y_nm + command.scan.beam_shift_y_nm,
        )  # fmt: skip
        name = names.get((round(x_nm, 1), round(y_nm, 1)))
        if name is not None:
            images[name] = frame.total(frame.mode.detectors[0].name).astype(float)
    return images
