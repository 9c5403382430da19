"""Specs, settings and what the catalogue answers with as HTML cards for notebooks; `instruments.cards` escapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instruments import cards

if TYPE_CHECKING:
    from orchestrator.catalogue.rows import DecisionRow, ExperimentRow, StoredFrame
    from orchestrator.features.feature_set import FeatureSet
    from orchestrator.settings import Settings
    from orchestrator.spec import ExperimentSpec


def spec_card(spec: ExperimentSpec) -> str:
    """What is asked, of what, with which freedom and within which limits."""
    optics = spec.instrument.optics
    limits = {name: value for name, value in [*spec.budget, *spec.safety] if value is not None}
    rows: dict[str, Any] = {
        "specimen": spec.specimen.material,
        "instrument": f"{spec.instrument.name}, {optics.beam_energy_ev / 1000:g} keV, "
        f"{optics.semi_convergence_angle_mrad:g} mrad",
        "question": _choice(spec.objective.name, spec.objective.options),
        "policy": _choice(spec.policy.name, spec.policy.options),
    }
    if spec.labels:
        rows["labels"] = spec.labels
    space = [(name, _range(entry), entry.get("resolution")) for name, entry in spec.search_space.items()]
    return cards.card(
        spec.name,
        "experiment",
        cards.facts(rows),
        cards.table(("the policy chooses", "from", "step"), space),
        cards.table(("limit", "at most"), limits.items()),
    )


def _choice(name: str, options: Mapping[str, Any]) -> str:
    return f"{name} ({cards.words(options)})" if options else name


def _range(entry: Mapping[str, Any]) -> str:
    return cards.words(entry["choices"]) if "choices" in entry else f"{entry.get('low')} to {entry.get('high')}"


def settings_card(settings: Settings) -> str:
    """Where data go and which instruments there are; passwords in a database's address are left out."""
    database = "SQLite in the data folder"
    if settings.database_url is not None:
        database = settings.database_url.rsplit("@", 1)[-1]
    instruments = [
        (name, chosen.adapter, {key: value for key, value in chosen.safety if value is not None})
        for name, chosen in settings.instruments.items()
    ]
    return cards.card(
        "Settings",
        "",
        cards.facts({"data folder": settings.data_folder, "database": database}),
        cards.table(("instrument", "adapter", "limits of the facility"), instruments),
    )


def experiment_card(row: ExperimentRow) -> str:
    """One experiment of the catalogue."""
    rows = {
        "status": row.status if row.reason is None else f"{row.status}: {row.reason}",
        "seed": row.seed,
        "engine": row.engine,
        "created": row.created_at.isoformat(timespec="seconds"),
    }
    return cards.card(f"Experiment {row.name}", row.id, cards.facts(rows))


def decision_card(row: DecisionRow) -> str:
    """One decision of the catalogue."""
    rows = {"why": row.decision.reason.get("why"), **row.decision.point, "frame": row.frame_id}
    status = row.status if row.status_reason is None else f"{row.status}: {row.status_reason}"
    return cards.card(f"Decision {row.decision.seq} by {row.decision.policy}", status, cards.facts(rows))


def frame_card(frame: StoredFrame) -> str:
    """One stored frame: where, how, and in which file."""
    rows = {
        "mode": f"{frame.mode}, {frame.purpose}",
        "centre": f"{frame.stage_x_nm + frame.beam_shift_x_nm:.1f}, {frame.stage_y_nm + frame.beam_shift_y_nm:.1f} nm",
        "field": f"{frame.field_of_view_nm:.4g} nm, pixels of {frame.pixel_size_nm:.3g} nm",
        "sub-frames": f"{frame.subframe_count} of {frame.dwell_time_us:.3g} us per pixel",
        "probe": f"{frame.probe_current_pa:g} pA, defocus {frame.defocus_nm:+g} nm",
        "dose": f"{frame.dose_e_per_a2:,.4g} e/Å², {frame.electrons:.3g} electrons",
        "file": f"{frame.path} ({frame.size_bytes / 1e6:.2g} MB)",
        "acquired": frame.acquired_at.isoformat(timespec="seconds"),
    }
    return cards.card(f"Stored frame {frame.id}", frame.instrument, cards.facts(rows))


def features_card(features: FeatureSet) -> str:
    """What was measured in one frame."""
    values = [(name, f.value, f.std, f.probability, f.reason or "") for name, f in sorted(features.values.items())]
    arrays = [
        (name, " x ".join(map(str, array.shape)), str(array.dtype)) for name, array in sorted(features.arrays.items())
    ]
    return cards.card(
        f"Features of {features.action_id}",
        f"by {features.extractor}",
        cards.table(("value", "is", "standard error", "probability", "remark"), values),
        cards.table(("array", "shape", "type"), arrays),
    )
