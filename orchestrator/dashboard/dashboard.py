"""The pages of one installation: HTML and pictures by experiment, each made once for each state of its journal.

Neighbours: `queue_view` and `experiment_view` say what is shown, `rendering` how; `orchestrator.api.pages` serves it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from typing import Final

from markupsafe import Markup

from instruments import Frame
from orchestrator.answer_file import AnswerSoFar, answer_path, read_answer
from orchestrator.catalogue import Catalogue, ExperimentRow
from orchestrator.dashboard import pictures
from orchestrator.dashboard.answers import map_names
from orchestrator.dashboard.chronicle import Chronicle, Step
from orchestrator.dashboard.chronicles import Chronicles
from orchestrator.dashboard.experiment_view import ExperimentPage, experiment_page
from orchestrator.dashboard.footprints import report_frame
from orchestrator.dashboard.instrument_view import InstrumentBoard, InstrumentView, StatusDesk, instrument_view
from orchestrator.dashboard.kept import Kept
from orchestrator.dashboard.past import PastExperiments
from orchestrator.dashboard.queue_view import RUNNING_SHOWN, WAITING_SHOWN, QueuePage, running_experiments
from orchestrator.dashboard.rendering import Visit, render
from orchestrator.dashboard.specimen_map import map_extent
from orchestrator.errors import FrameDamaged, NotFound
from orchestrator.queue import ExperimentQueue, QueueEntry
from orchestrator.report.census_view import CensusView
from orchestrator.report.close_ups import crop_about
from orchestrator.report.overview import survey_mosaic

_PICTURES_KEPT: Final = 128
_FRAMES_KEPT: Final = 12
_VIEWS_KEPT: Final = 48


@dataclass(frozen=True, slots=True)
class Body:
    """The part of a page that changes, as HTML, and the tag that changes with it."""

    html: str
    etag: str


class Dashboard:
    """Everything the page shows of one data folder; any thread may ask. Raises NotFound for what is not there."""

    def __init__(self, catalogue: Catalogue, queue: ExperimentQueue, desk: StatusDesk, version: str) -> None:
        self._catalogue = catalogue
        self._queue = queue
        self._version = version
        self.board = InstrumentBoard(desk)
        self._chronicles = Chronicles(catalogue)
        self._past = PastExperiments(catalogue)
        self._views = Kept[ExperimentPage](_VIEWS_KEPT)
        self._bodies = Kept[Body](_VIEWS_KEPT)
        self._decoded = Kept[Frame](_FRAMES_KEPT)
        self._pictures = Kept[bytes](_PICTURES_KEPT)
        self._answers = Kept[AnswerSoFar | None](8)

    # --- pages

    def queue_html(self, visit: Visit, before: str | None) -> str:
        """The whole first page."""
        page = self.queue_page(before)
        body = self._queue_body(page, visit)
        return self._render("queue.html.j2", visit, page=page, body=_safe(body.html), etag=body.etag, before=before,
                            here="queue")  # fmt: skip

    def queue_body(self, visit: Visit, before: str | None) -> Body:
        """The part of the first page that changes."""
        return self._queue_body(self.queue_page(before), visit)

    def experiment_html(self, experiment_id: str, visit: Visit, page_number: int) -> str:
        """The whole page of an experiment."""
        page, body = self._experiment(experiment_id, visit, page_number)
        return self._render("experiment.html.j2", visit, page=page, body=_safe(body.html), etag=body.etag)

    def experiment_body(self, experiment_id: str, visit: Visit, page_number: int) -> Body:
        """The part of an experiment's page that changes."""
        return self._experiment(experiment_id, visit, page_number)[1]

    def error_html(self, status: int, title: str, detail: str, visit: Visit) -> str:
        """What went wrong, in the page's style."""
        return self._render("error.html.j2", visit, status=status, title=title, detail=detail)

    def no_report_html(self, experiment_id: str, visit: Visit) -> str:
        """That there is no report yet, and a button that has one written."""
        return self._render("no_report.html.j2", visit, row=self._row(experiment_id))

    def login_html(self, visit: Visit, back: str) -> str:
        """Where a token is given."""
        return self._render("login.html.j2", visit, back=back)

    # --- views

    def queue_page(self, before: str | None = None) -> QueuePage:
        """What runs, waits, can go on and has ended."""
        begun, waiting, stopped = self._queue.groups(
            (("running",), RUNNING_SHOWN),
            (("queued", "held"), WAITING_SHOWN + 1),
            (("paused", "interrupted"), WAITING_SHOWN),
        )
        running = running_experiments(begun, self._catalogue, self._chronicles, self._catalogue.now())
        return QueuePage(
            running=running,
            waiting=tuple(waiting[:WAITING_SHOWN]),
            more_waiting=len(waiting) > WAITING_SHOWN,
            stopped=tuple(stopped),
            past=self._past.page(before),
            instruments=self.instruments({one.entry.id: one.entry.name for one in running}),
        )

    def instruments(self, owners: dict[str, str]) -> tuple[InstrumentView, ...]:
        """All instruments; `owners` are names of experiments by id."""
        leases = {lease.instrument: lease for lease in self._queue.leases()}
        return tuple(
            instrument_view(name, said, leases.get(name), owners) for name, said in self.board.states().items()
        )

    # --- pictures and files

    def frame_png(self, experiment_id: str, frame_id: str, detector: str) -> bytes:
        """One detector of a frame."""

        def draw() -> bytes:
            self._step(experiment_id, frame_id)
            frame = self._frame(frame_id)
            if detector not in frame.counts:
                raise NotFound(f"frame {frame_id} has no detector {detector!r}; it has {', '.join(frame.counts)}")
            image = frame.picture(detector).astype(float)
            return pictures.grey_png(image, *pictures.contrast(image))

        return self._pictures.get((experiment_id, frame_id, detector), draw)

    def ground_png(self, experiment_id: str) -> bytes:
        """The survey frames laid together under the map."""
        row, chronicle = self._row(experiment_id), self._chronicles.of(experiment_id)
        answer = self._answer(experiment_id)
        extent = map_extent(chronicle, row.spec, answer)
        surveys = [report_frame(step) for step in chronicle.frames if step.command["purpose"] == "survey"]
        if extent is None or not surveys:
            raise NotFound(f"experiment {experiment_id} has no survey frame")

        def draw() -> bytes:
            mosaic = survey_mosaic(surveys, self._frame, extent)
            if mosaic is None:
                raise NotFound(f"experiment {experiment_id} has no survey frame")
            return pictures.ground_png(mosaic)

        return self._pictures.get((experiment_id, "ground", len(surveys), extent), draw)

    def map_png(self, experiment_id: str, name: str) -> bytes:
        """One of the objective's maps, as it is now."""
        answer = self._answer(experiment_id)
        if answer is None or name not in dict(map_names(answer)):
            raise NotFound(f"experiment {experiment_id} has no map {name!r}")
        return self._pictures.get(
            (experiment_id, name, answer.frame_count), lambda: pictures.coloured_png(answer.maps[name])
        )

    def site_png(self, experiment_id: str, row_number: int, frame_id: str) -> bytes:
        """A find close up, in one frame."""
        answer = self._answer(experiment_id)
        view = None if answer is None else CensusView.of_answer(answer.summary, answer.maps)
        if view is None or not 0 <= row_number < len(view.x_nm):
            raise NotFound(f"experiment {experiment_id} has no site {row_number}")
        entry = report_frame(self._step(experiment_id, frame_id))

        def draw() -> bytes:
            frame = self._frame(frame_id)
            drift_x, drift_y = view.drift_of(entry)
            image = frame.total(next(iter(frame.counts)))
            x_nm, y_nm = float(view.x_nm[row_number]) + drift_x, float(view.y_nm[row_number]) + drift_y
            return pictures.site_png(crop_about(image, entry, x_nm, y_nm))

        place = (round(float(view.x_nm[row_number]), 2), round(float(view.y_nm[row_number]), 2))
        return self._pictures.get((experiment_id, "site", place, frame_id), draw)

    # --- inside

    def _experiment(self, experiment_id: str, visit: Visit, page_number: int) -> tuple[ExperimentPage, Body]:
        """View and body, made anew only when something that they show has changed."""
        row, now = self._row(experiment_id), self._catalogue.now()
        chronicle, entry, answer = self._chronicles.of(row.id), self._entry(row.id), self._answer(row.id)
        counted = None if answer is None else answer.frame_count
        state = (row.id, row.updated_at, row.status, chronicle.last_seq, entry, counted, page_number, _day(now))

        def look() -> ExperimentPage:
            return experiment_page(
                row, chronicle, entry=entry, answer=answer, detectors=self._detectors(chronicle),
                dose_max_e_per_a2=self._chronicles.dose_max_e_per_a2(row.id), page_number=page_number, now=now,
            )  # fmt: skip

        page = self._views.get(state, look)
        instrument = next((one for one in self.instruments({row.id: row.name}) if one.name == page.instrument), None)
        return page, self._body("experiment_body.html.j2", visit, (state, instrument), page=page, instrument=instrument)

    def _queue_body(self, page: QueuePage, visit: Visit) -> Body:
        return self._body("queue_body.html.j2", visit, (page, _day(self._catalogue.now())), page=page)

    def _body(self, template: str, visit: Visit, state: Hashable, **values: object) -> Body:
        def write() -> Body:
            html = self._render(template, visit, **values)
            return Body(html, sha256(html.encode()).hexdigest()[:24])

        return self._bodies.get((template, visit.csrf, state), write)

    def _render(self, template: str, visit: Visit, **values: object) -> str:
        return render(template, visit, self._catalogue.now(), self._version, **values)

    def _row(self, experiment_id: str) -> ExperimentRow:
        return self._catalogue.experiment(experiment_id)

    def _entry(self, experiment_id: str) -> QueueEntry | None:
        try:
            return self._queue.entry(experiment_id)
        except NotFound:
            return None

    def _step(self, experiment_id: str, frame_id: str) -> Step:
        step = self._chronicles.of(self._row(experiment_id).id).frame(frame_id)
        if step is None:
            raise NotFound(f"experiment {experiment_id} has no frame {frame_id!r}")
        return step

    def _frame(self, frame_id: str) -> Frame:
        return self._decoded.get(frame_id, lambda: self._catalogue.load_frame(frame_id))

    def _detectors(self, chronicle: Chronicle) -> tuple[str, ...]:
        if not chronicle.frames:
            return ()
        try:
            return tuple(self._frame(chronicle.frames[-1].frame_id).counts)
        except (FrameDamaged, NotFound):
            return ()

    def _answer(self, experiment_id: str) -> AnswerSoFar | None:
        path = answer_path(self._catalogue.data_folder, experiment_id)
        try:
            written = path.stat().st_mtime_ns
        except OSError:
            return None
        return self._answers.get((experiment_id, written), lambda: read_answer(path))


def _safe(html: str) -> Markup:
    return Markup(html)


def _day(now: datetime) -> date:
    """Moments are written with their date once it is not today's."""
    return now.astimezone().date()
