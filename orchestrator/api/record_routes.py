"""What an experiment recorded: decisions, frames as metadata, picture, array and file, the report.

Neighbour: `event_routes` has the journal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from instruments import Frame
from orchestrator.api.access import require_owner
from orchestrator.api.answers import json_answer
from orchestrator.api.experiment_routes import ExperimentId, queue_facts
from orchestrator.api.frame_png import picture_of
from orchestrator.api.models import FRAME_PATTERN, Decisions, FrameFacts, Frames, ReportMade
from orchestrator.api.problems import Problem
from orchestrator.api.ranges import bytes_answer
from orchestrator.api.route import PREFIX, StrictRoute, identity_of, operation, services_of
from orchestrator.catalogue import StoredFrame, line_rows
from orchestrator.errors import Conflict, FrameDamaged, NotFound
from orchestrator.plain_json import plain

router = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["records"])
NEXUS: Final = "application/x-hdf5"
AXES: Final = ("subframe", "y", "x", "detector_y", "detector_x")  # the last two of a camera read at scan points
FrameId = Annotated[str, Path(pattern=FRAME_PATTERN)]
DetectorName = Annotated[
    str | None, Query(max_length=64, pattern=r"^[\w .+-]+$", description="default: the frame's first")
]
_REPORT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
_BYTES: Final = {"schema": {"type": "string", "contentEncoding": "binary"}}


def _bytes(media_type: str, what: str, *statuses: int) -> dict[int, Any]:
    answer = {"description": what, "content": {media_type: _BYTES}}
    return {200: answer, **dict.fromkeys(statuses, answer), 304: {"description": "You have it already."}}


@router.get(
    "/experiments/{experiment_id}/decisions", operation_id="list_decisions", **operation("read", {200: Decisions}, 404)
)
def decisions(
    request: Request,
    experiment_id: ExperimentId,
    after: Annotated[int, Query(ge=0, le=2**31, description="`seq` of the last one seen")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """Decisions in order, each with its reason, prediction, and what became of it."""
    services = services_of(request)
    row = services.catalogue.experiment(experiment_id)
    known = [entry for entry in services.experiment_document(row.id)["decisions"] if entry["seq"] > after]
    more = len(known) > limit
    return json_answer({"decisions": known[:limit], "next_after": known[limit - 1]["seq"] if more else None})


@router.get("/experiments/{experiment_id}/frames", operation_id="list_frames", **operation("read", {200: Frames}, 404))
def frames(
    request: Request,
    experiment_id: ExperimentId,
    after: Annotated[int, Query(ge=0, le=2**31, description="`ordinal` of the last one seen")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """Stored frames in order: conditions, dose, file and checksum."""
    services = services_of(request)
    row = services.catalogue.experiment(experiment_id)
    known = [frame for frame in services.catalogue.frames(row.id) if frame.ordinal > after]
    more = len(known) > limit
    shown = [frame_facts(frame) for frame in known[:limit]]
    return json_answer({"frames": shown, "next_after": known[limit - 1].ordinal if more else None})


@router.get(
    "/experiments/{experiment_id}/frames/{frame_id}",
    operation_id="get_frame",
    **operation("read", {200: FrameFacts}, 404),
)
def frame(request: Request, experiment_id: ExperimentId, frame_id: FrameId) -> Response:
    """One stored frame: conditions, dose, detectors (an array has as many of `axes` as its shape), file, checksum."""
    stored = _stored(request, experiment_id, frame_id)
    loaded = services_of(request).catalogue.load_frame(stored.id)
    detectors = {
        name: {"dtype": _little(counts).dtype.str, "shape": list(counts.shape)}
        for name, counts in loaded.counts.items()
    }
    return json_answer(
        {
            **frame_facts(stored),
            "detectors": detectors,
            "axes": max(map(_axes, loaded.counts.values()), key=len, default=[]),
        }
    )


@router.get(
    "/experiments/{experiment_id}/frames/{frame_id}/image.png",
    operation_id="get_frame_image",
    **operation("read", _bytes("image/png", "A picture."), 404),
)
def image(request: Request, experiment_id: ExperimentId, frame_id: FrameId, detector: DetectorName = None) -> Response:
    """One detector's counts of all sub-frames together, grey, from the 0.5th to the 99.8th percentile."""
    _, loaded, name = _loaded(request, experiment_id, frame_id, detector)
    picture = picture_of(loaded, name)
    return bytes_answer(
        request,
        picture.png,
        sha256=hashlib.sha256(picture.png).hexdigest(),
        media_type="image/png",
        headers={
            "X-Detector": name,
            "X-Pixel-Size-Nm": repr(loaded.pixel_size_nm),
            "X-Field-Of-View-Nm": repr(loaded.requested.scan.field_of_view_nm),
            "X-Black-Counts": repr(picture.black_counts),
            "X-White-Counts": repr(picture.white_counts),
        },
    )


@router.get(
    "/experiments/{experiment_id}/frames/{frame_id}/data",
    operation_id="get_frame_data",
    **operation("read", _bytes("application/octet-stream", "The array.", 206), 404, 416),
)
def data(request: Request, experiment_id: ExperimentId, frame_id: FrameId, detector: DetectorName = None) -> Response:
    """One detector's raw counts, little-endian, C order, axes in X-Axes; Range is understood."""
    _, loaded, name = _loaded(request, experiment_id, frame_id, detector)
    counts = _little(loaded.counts[name])
    raw = counts.reshape(-1).view(np.uint8).data
    return bytes_answer(
        request,
        raw,
        sha256=hashlib.sha256(raw).hexdigest(),
        media_type="application/octet-stream",
        headers={
            "X-Detector": name,
            "X-Dtype": counts.dtype.str,
            "X-Shape": ",".join(map(str, counts.shape)),
            "X-Axes": ",".join(_axes(counts)),
        },
    )


@router.get(
    "/experiments/{experiment_id}/frames/{frame_id}/file",
    operation_id="get_frame_file",
    **operation("read", _bytes(NEXUS, "The NeXus file.", 206), 404, 416),
)
def file(request: Request, experiment_id: ExperimentId, frame_id: FrameId) -> Response:
    """The frame's NeXus file as it was stored; Range is understood."""
    stored = _stored(request, experiment_id, frame_id)
    path = services_of(request).catalogue.data_folder / stored.path
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise FrameDamaged(f"{stored.path} is missing in the data folder; restore it from a copy") from error
    if hashlib.sha256(raw).hexdigest() != stored.sha256:
        raise FrameDamaged(f"{stored.path} differs from its checksum {stored.sha256}; restore it from a copy")
    name = {"Content-Disposition": f'attachment; filename="{path.name}"'}
    return bytes_answer(request, raw, sha256=stored.sha256, media_type=NEXUS, headers=name)


@router.get(
    "/experiments/{experiment_id}/report",
    operation_id="get_report",
    **operation(
        "read",
        {200: {"description": "The report.", "content": {"text/html": {"schema": {"type": "string"}}}}},
        404,
        409,
    ),
)
def report(request: Request, experiment_id: ExperimentId) -> Response:
    """The report, one HTML page without external parts; 409 while there is none."""
    catalogue = services_of(request).catalogue
    row = catalogue.experiment(experiment_id)
    path = catalogue.data_folder / "experiments" / row.id / "report.html"
    try:
        page = path.read_bytes()
    except FileNotFoundError:
        raise Conflict(
            f"experiment {row.id} is {row.status} and has no report yet; it is written when the experiment ends, "
            "POST here writes one of what there is",
            status=row.status,
        ) from None
    return HTMLResponse(page, headers={"Content-Security-Policy": _REPORT_POLICY, "Cache-Control": "no-cache"})


@router.post(
    "/experiments/{experiment_id}/report",
    operation_id="write_report",
    **operation("experiments:write", {201: ReportMade}, 404, keyed=True, creates=True),
)
def write_report(request: Request, experiment_id: ExperimentId) -> Response:
    """Write the report of what there is so far."""
    services = services_of(request)
    row = services.catalogue.experiment(experiment_id)
    entry = queue_facts(services, row.id)
    require_owner(identity_of(request), None if entry is None else entry["submitted_by"])
    path = services.write_report(row.id)
    location = f"{PREFIX}/experiments/{row.id}/report"
    return json_answer({"size_bytes": path.stat().st_size, "location": location}, 201, {"Location": location})


def frame_facts(stored: StoredFrame) -> dict[str, Any]:
    """A stored frame's metadata."""
    facts: Mapping[str, Any] = plain(stored)
    return {**facts, "path": stored.path}


def _stored(request: Request, experiment_id: str, frame_id: str) -> StoredFrame:
    catalogue = services_of(request).catalogue
    row = catalogue.experiment(experiment_id)
    with catalogue.database.reading() as connection:
        found = line_rows.stored(connection, frame_id)
    if found is None or found.experiment_id != row.id:
        raise NotFound(f"experiment {row.id} has no stored frame {frame_id}; GET .../frames lists them")
    return found


def _loaded(
    request: Request, experiment_id: str, frame_id: str, detector: str | None
) -> tuple[StoredFrame, Frame, str]:
    stored = _stored(request, experiment_id, frame_id)
    loaded = services_of(request).catalogue.load_frame(stored.id)
    name = next(iter(loaded.counts)) if detector is None else detector
    if name not in loaded.counts:
        raise Problem("not-found", f"the frame has no detector {name!r}; it has {', '.join(loaded.counts)}")
    return stored, loaded, name


def _axes(counts: np.ndarray) -> list[str]:
    return list(AXES[: counts.ndim])


def _little(counts: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(counts, dtype=counts.dtype.newbyteorder("<"))
