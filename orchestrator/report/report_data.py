"""Everything a report is made of, as values: the catalogue's side fills them in, `render` turns them into a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instruments import Frame
from orchestrator.features.feature_set import FeatureSet
from orchestrator.report.measured_image import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentFacts:
    """Which experiment, how it ended and with what it was made; times are ISO 8601 text."""

    id: str
    name: str
    status: str
    reason: str | None
    created_at: str
    ended_at: str | None
    engine: str
    policy: str
    seed: int
    instrument: str
    is_simulated: bool
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDecision:
    """One decision and what came of it; `electrons` and `instrument_time_s` are spent so far, None where unknown.

    `reason` holds a sentence under `why` and the numbers behind it; `status_reason` says why there is no frame.
    """

    seq: int
    id: str
    suggestion_id: str
    point: Mapping[str, Any]
    prediction: Mapping[str, tuple[float | None, float | None]]
    cost: Mapping[str, float | None]
    reason: Mapping[str, Any]
    status: str
    status_reason: str | None = None
    score: float | None = None
    electrons: float | None = None
    instrument_time_s: float | None = None
    frame_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFrame:
    """One stored frame; x and y are nominal (stage plus beam shift), `path` is relative to the data folder.

    `dwell_time_us` is the dwell of one sub-frame per pixel, `dose_e_per_a2` the mean over the scanned area.
    """

    id: str
    decision_seq: int
    action_id: str
    path: str
    sha256: str
    purpose: str
    mode: str
    dose_e_per_a2: float
    electrons: float
    x_nm: float
    y_nm: float
    width_nm: float
    height_nm: float
    pixel_size_nm: float
    dwell_time_us: float
    subframe_count: int
    started_s: float
    ended_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What was spent of which limit, as the ledger counts it; None where there is no limit."""

    electrons: float
    instrument_time_s: float
    dose_max_e_per_a2: float
    limit_electrons: float | None = None
    limit_instrument_time_s: float | None = None
    limit_dose_e_per_a2: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerShare:
    """Electrons that went to one purpose; the shares of a ledger add up to its total."""

    purpose: str
    electrons: float
    frame_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """This run and the baselines against the hidden truth, for worlds that know it.

    `verdict` is the judge's of the question (and the ledger's comparison); `curve` and each baseline's `curve` are
    points with electrons, instrument_time_s, recall, false_discovery_rate.
    """

    verdict: Mapping[str, Any]
    curve: tuple[Mapping[str, float], ...] = ()
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """One experiment, whole. `summary` and `maps` are the objective's; `spec` with absolute paths removed.

    `load_frame` takes a frame's id; `load_features` an action id and gives None where there are none. `measured`: the
    question's extractor on measured images, None for a question without.
    """

    experiment: ExperimentFacts
    spec: Mapping[str, Any]
    spec_text: str
    decisions: tuple[ReportDecision, ...]
    frames: tuple[ReportFrame, ...]
    spending: Spending
    ledger: tuple[LedgerShare, ...]
    summary: Mapping[str, Any]
    maps: Mapping[str, np.ndarray]
    load_frame: Callable[[str], Frame]
    load_features: Callable[[str], FeatureSet | None]
    evaluation: Evaluation | None = None
    measured: Measured | None = None
