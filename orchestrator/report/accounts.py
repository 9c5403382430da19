"""Where electrons and time went, the ledger against the world, and what was asked beside what was read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instruments import Frame
from orchestrator.report.pictures import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH_INCHES,
    Picture,
    as_svg,
    canvas,
)
from orchestrator.report.report_data import LedgerShare, ReportData, ReportFrame

_COLOURS = {
    "survey": MUTED, "focus": SKY, "field": VERMILLION, "revisit": GREEN, "flyback": ORANGE, "blanker settling": PURPLE,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRow:
    """One purpose in the ledger, as text."""

    purpose: str
    frames: str
    electrons: str
    share: str
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRow:
    """One budget: spent, limit and per cent for the bar."""

    name: str
    spent: str
    limit: str
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBackRow:
    """One quantity of one frame, asked for and read back; `frame` is empty but in the first row of a frame."""

    frame: str
    quantity: str
    requested: str
    read_back: str
    difference: str


def share_rows(shares: Sequence[LedgerShare]) -> list[ShareRow]:
    """The ledger by purpose."""
    total = sum(share.electrons for share in shares) or 1.0
    return [
        ShareRow(
            purpose=share.purpose,
            frames="" if share.frame_count is None else str(share.frame_count),
            electrons=f"{share.electrons:.4g}",
            share=f"{share.electrons / total:.2%}",
            colour=_COLOURS.get(share.purpose, BLUE),
        )
        for share in shares
    ]  # fmt: skip


def ledger_picture(data: ReportData) -> Picture | None:
    """One stacked bar of the electrons by purpose; None before anything was spent."""
    shares = [share for share in data.ledger if share.electrons > 0]
    if not shares:
        return None
    with canvas(WIDTH_INCHES, 1.25) as figure:
        axes = figure.add_subplot()
        left = 0.0
        for share in shares:
            width = share.electrons / 1e9
            axes.barh(
                0,
                width,
                left=left,
                color=_COLOURS.get(share.purpose, BLUE),
                edgecolor="white",
                linewidth=0.6,
                label=share.purpose,
            )
            left += width
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("electrons, 10⁹")
        if data.spending.limit_electrons is not None:
            axes.axvline(data.spending.limit_electrons / 1e9, color=INK, linewidth=1.0, linestyle=":")
        axes.set_xlim(0, 1.02 * max(left, (data.spending.limit_electrons or 0.0) / 1e9))
        figure.legend(loc="outside upper center", ncols=7)
        markup = as_svg(
            figure, "ledger", "Electrons by purpose: " + ", ".join(f"{s.purpose} {s.electrons:.3g}" for s in shares)
        )
    return Picture(
        markup=markup, caption="All electrons that reached the specimen, by purpose; the dotted line is the budget."
    )


def budget_rows(data: ReportData) -> list[BudgetRow]:
    """Electrons, time and local dose with their limits."""
    spending = data.spending
    rows = (
        ("electrons", spending.electrons, spending.limit_electrons, ".3g", ""),
        ("microscope time", spending.instrument_time_s, spending.limit_instrument_time_s, ".1f", " s"),
        ("dose in any 1 nm² (upper bound)", spending.dose_max_e_per_a2, spending.limit_dose_e_per_a2, ",.0f", " e/Å²"),
    )
    return [
        BudgetRow(
            name=name, spent=f"{spent:{form}}{unit}", limit="no limit" if limit is None else f"{limit:{form}}{unit}",
            fraction=0.0 if not limit else min(1.0, spent / limit),
        )
        for name, spent, limit, form, unit in rows
    ]  # fmt: skip


def ledger_against_truth(verdict: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, value) of the comparison of our ledger with the world's own dose; empty where it was not made."""
    if "ledger_error_fraction" not in verdict:
        return []
    rows = [("ledger minus truth, all electrons", f"{verdict['ledger_error_fraction']:+.2%}")]
    for key, words, form in (
        ("ledger_electrons", "electrons in the ledger", ".5g"),
        ("true_electrons", "electrons in the world", ".5g"),
        (
            "ledger_cell_rms_error_fraction",
            "rms difference of 1 nm² cells above a tenth of the maximum, of their mean",
            ".1%",
        ),
        ("ledger_dose_max_e_per_a2", "highest local dose in the ledger (upper bound), e/Å²", ",.0f"),
        ("true_dose_max_e_per_a2", "highest mean dose of a 1 nm² cell in the world, e/Å²", ",.0f"),
    ):
        if key in verdict:
            rows.append((words, format(verdict[key], form)))
    return rows


def read_back_rows(frames: Sequence[tuple[ReportFrame, Frame]]) -> list[ReadBackRow]:
    """What each frame was asked to be and what the instrument read back at its end."""
    return [
        row for entry, frame in frames for row in _of_frame(f"decision {entry.decision_seq}, {entry.purpose}", frame)
    ]


def _of_frame(label: str, frame: Frame) -> list[ReadBackRow]:
    command, state = frame.requested, frame.state
    values: list[tuple[str, float | None, float | None, str]] = [
        ("stage x, nm", command.stage.x_nm, state.stage.x_nm, ".2f"),
        ("stage y, nm", command.stage.y_nm, state.stage.y_nm, ".2f"),
        ("beam shift x, nm", command.scan.beam_shift_x_nm, state.beam_shift_x_nm, ".2f"),
        ("beam shift y, nm", command.scan.beam_shift_y_nm, state.beam_shift_y_nm, ".2f"),
        ("defocus, nm", command.optics.defocus_nm, state.optics.defocus_nm, ".2f"),
        ("probe current, pA", command.optics.probe_current_pa, state.measured_current_pa, ".2f"),
        ("camera length, mm", command.optics.camera_length_mm, state.optics.camera_length_mm, ".0f"),
    ]
    asked_dose = _nominal_dose(frame)
    values.append(("dose, e/Å²", asked_dose, frame.dose_e_per_a2, ",.1f"))
    return [
        ReadBackRow(
            frame="" if number else label, quantity=name, requested=_text(asked, form), read_back=_text(read, form),
            difference="" if asked is None or read is None else _difference(asked, read, form),
        )
        for number, (name, asked, read, form) in enumerate(values)
    ]  # fmt: skip


def _nominal_dose(frame: Frame) -> float | None:
    from instruments.units import ANGSTROM2_PER_NM2, electrons

    current_pa = frame.requested.optics.probe_current_pa
    if current_pa <= 0:
        return None
    scan = frame.requested.scan
    return electrons(current_pa, scan.duration_s(frame.requested.subframe_count)) / (scan.area_nm2 * ANGSTROM2_PER_NM2)


def _text(value: float | None, form: str) -> str:
    return "not known" if value is None else format(value, form)


def _difference(asked: float, read: float, form: str) -> str:
    gap = read - asked
    relative = f" ({gap / asked:+.1%})" if asked and abs(gap) > 1e-9 else ""
    return f"{gap:+{form}}{relative}"
