"""Drawing for notebooks: frames with scale bars, the detectors of an instrument, where the dose went.

The only module here that loads matplotlib, and only when something is drawn. Colours are Okabe and Ito's (Color
Universal Design, 2008), readable with any colour vision. Neighbour: `cards` (HTML).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from instruments.errors import Unsupported

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from instruments.capabilities import Capabilities
    from instruments.dose_ledger import DoseLedger
    from instruments.frames import Frame

INK, MUTED, RULE = "#1a1a1a", "#6b6b6b", "#c9c9c9"
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
SERIES_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_NICE = (1.0, 2.0, 5.0)
_THUMBNAIL_PX = 160


def new_axes(width_inches: float = 5.2, height_inches: float = 4.4) -> Axes:
    """Axes of a figure of their own, shown by the notebook at the end of its cell."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(width_inches, height_inches), layout="constrained")
    figure.set_facecolor("white")
    return axes


def plain_frame(axes: Axes) -> None:
    """No spines at the top and right."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def scale_bar(axes: Axes, width_nm: float, *, dark: bool = False, unit: str = "nm") -> None:
    """A bar of a round length, about a fifth of the width, in the lower left corner; legible on any image.

    `unit`: what the axes are in, where it is not nm.
    """
    from matplotlib.offsetbox import AnchoredOffsetbox, AuxTransformBox, TextArea, VPacker
    from matplotlib.patches import Rectangle

    length_nm = round_length_nm(0.22 * width_nm)
    colour = INK if dark else "white"
    box = AuxTransformBox(axes.transData)
    box.add_artist(Rectangle((0, 0), length_nm, 0.012 * width_nm, facecolor=colour, edgecolor="none"))
    label = TextArea(f"{length_nm:g} {unit}", textprops={"color": colour, "size": 8.5, "weight": "bold"})
    packed = VPacker(children=[box, label], align="center", pad=0, sep=2)
    anchored = AnchoredOffsetbox(loc="lower left", child=packed, pad=0.35, borderpad=0.5)
    anchored.patch.set(facecolor="white" if dark else "black", edgecolor="none", alpha=0.6)
    axes.add_artist(anchored)


def round_length_nm(wanted_nm: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `wanted_nm`.

    >>> round_length_nm(44.0), round_length_nm(4.4), round_length_nm(0.9)
    (20.0, 2.0, 0.5)
    """
    power = 1.0
    while power > wanted_nm:
        power /= 10
    while power * 10 <= wanted_nm:
        power *= 10
    return max(power * step for step in _NICE if power * step <= wanted_nm)


def grey_limits(image: np.ndarray) -> tuple[float, float]:
    """Black and white of an image: a few outliers may saturate."""
    low, high = np.percentile(image, [0.5, 99.8])
    return float(low), float(max(high, low + 1))


def draw_image(
    axes: Axes, image: np.ndarray, centre_nm: tuple[float, float], width_nm: float, *, cmap: str = "gray", label: str
) -> None:
    """An image at its place, axes in nm with a scale bar and its intensities; row 0 is the lowest y."""
    rows, columns = image.shape
    x_nm, y_nm = centre_nm
    half_x, half_y = width_nm / 2, width_nm * rows / columns / 2
    low, high = grey_limits(image)
    shown = axes.imshow(
        image,
        origin="lower",
        interpolation="nearest",
        extent=(x_nm - half_x, x_nm + half_x, y_nm - half_y, y_nm + half_y),
        cmap=cmap,
        vmin=low,
        vmax=high,
        aspect="equal",
    )
    axes.set_xlabel("x (nm)")
    axes.set_ylabel("y (nm)")
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(shown, ax=axes, label=label, shrink=0.85)
    scale_bar(axes, width_nm)


def draw_frame(frame: Frame, detector: str | None = None, axes: Axes | None = None) -> Axes:
    """One detector's image (default: the mode's first), all sub-frames together, where it was taken.

    What a camera saw under a beam that stood still has axes in detector pixels, row 0 on top.
    """
    name = frame.detector_named(detector)
    command = frame.requested
    axes = new_axes() if axes is None else axes
    if frame.is_one_pattern(name):
        return _draw_pattern(frame, name, axes)
    turned = command.scan.rotation_deg % 360 != 0
    centre_nm = (0.0, 0.0) if turned else frame.centre_nm
    draw_image(
        axes,
        frame.total(name),
        centre_nm,
        command.scan.field_of_view_nm,
        cmap="cividis" if frame.mode.kind in ("eds", "eels") else "gray",
        label=_unit(frame, name),
    )
    if turned:
        axes.set_xlabel("along the scan lines (nm)")
        axes.set_ylabel("across the scan lines (nm)")
    axes.set_title(_title(frame, name), loc="left", fontsize=10)
    return axes


def _draw_pattern(frame: Frame, name: str, axes: Axes) -> Axes:
    image = frame.pattern(name)
    low, high = grey_limits(image)
    shown = axes.imshow(image, interpolation="nearest", cmap="gray", vmin=low, vmax=high, aspect="auto")
    if (figure := axes.get_figure()) is not None:
        figure.colorbar(shown, ax=axes, label=_unit(frame, name), shrink=0.85)
    axes.set_xlabel("detector column (pixel)")
    axes.set_ylabel("detector row (pixel)")
    axes.set_title(_title(frame, name), loc="left", fontsize=10)
    return axes


def _unit(frame: Frame, detector: str) -> str:
    known = next((known for known in frame.mode.detectors if known.name == detector), None)
    return "counts per pixel" if known is None or known.raw_counts else "signal, instrument's own unit"


def _title(frame: Frame, detector: str) -> str:
    x_nm, y_nm = frame.centre_nm
    command = frame.requested
    known = next((known for known in frame.mode.detectors if known.name == detector), None)
    angles = (
        "" if known is None or known.outer_mrad is None else f" ({known.inner_mrad or 0:g}-{known.outer_mrad:g} mrad)"
    )
    return (
        f"{detector}{angles}, {command.purpose} at ({x_nm:.1f}, {y_nm:.1f}) nm\n"
        f"{command.scan.field_of_view_nm:.3g} nm wide, {frame.dose_e_per_a2:,.3g} e/Å², "
        f"defocus {command.optics.defocus_nm:+g} nm"
    )


def thumbnail_png(image: np.ndarray) -> bytes:
    """A small grey picture of an image, lowest row at the bottom."""
    from PIL import Image

    low, high = grey_limits(image)
    grey = np.clip((image - low) / (high - low) * 255, 0, 255).astype(np.uint8)[::-1]
    packed = io.BytesIO()
    small = Image.fromarray(grey)
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX)
    small.save(packed, format="PNG", optimize=True)
    return packed.getvalue()


def draw_capabilities(capabilities: Capabilities, axes: Axes | None = None) -> Axes:
    """Which scattering angles each detector of each mode collects. Raises Unsupported where no angle is known."""
    bars = [
        (mode.name, detector)
        for mode in capabilities.modes
        for detector in mode.detectors
        if detector.outer_mrad is not None
    ]
    if not bars:
        raise Unsupported(f"instrument {capabilities.name!r} states no collection angles; there is nothing to draw")
    axes = new_axes(6.0, 1.1 + 0.42 * len(bars)) if axes is None else axes
    modes = list(dict.fromkeys(mode for mode, _ in bars))
    for row, (mode, detector) in enumerate(bars):
        inner_mrad, outer_mrad = detector.inner_mrad or 0.0, detector.outer_mrad or 0.0
        colour = SERIES_COLOURS[modes.index(mode) % len(SERIES_COLOURS)]
        axes.barh(row, outer_mrad - inner_mrad, left=inner_mrad, height=0.6, color=colour)
        axes.text(outer_mrad, row, f" {inner_mrad:g}-{outer_mrad:g} mrad", va="center", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(bars)), [f"{detector.name}, mode {mode}" for mode, detector in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(detector.outer_mrad or 0.0 for _, detector in bars))
    axes.set_xlabel("scattering angle (mrad)")
    title = f"What the detectors of {capabilities.name!r} collect;\nthose of one colour are read together"
    axes.set_title(title, loc="left", fontsize=10)
    plain_frame(axes)
    return axes


def draw_dose(ledger: DoseLedger, axes: Axes | None = None) -> Axes:
    """Mean dose of every 1 nm2 cell that was exposed. Raises Unsupported while nothing was."""
    from matplotlib.colors import LogNorm

    window = ledger.window_nm()
    if window is None and ledger.electrons:
        raise Unsupported("all that was exposed is kept on cells of 64 nm: fields too wide, or of a tilted specimen")
    if window is None:
        raise Unsupported("nothing has been exposed yet; there is no dose to draw")
    x_nm, y_nm, columns, rows = window
    dose = ledger.mean_map(x_nm, y_nm, columns, rows)
    axes = new_axes() if axes is None else axes
    exposed = np.ma.masked_less_equal(dose, 0.0)
    shown = axes.imshow(
        exposed,
        origin="lower",
        interpolation="nearest",
        extent=(x_nm, x_nm + columns, y_nm, y_nm + rows),
        cmap="cividis",
        norm=LogNorm(vmin=max(float(exposed.min()), 1e-3 * float(exposed.max())), vmax=float(exposed.max())),
        aspect="equal",
    )
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(shown, ax=axes, label="mean dose of a 1 nm² cell (e/Å²)", shrink=0.85)
    axes.set_xlabel("x (nm)")
    axes.set_ylabel("y (nm)")
    axes.set_title(f"Where {ledger.electrons:.3g} electrons went; white: nowhere", loc="left", fontsize=10)
    return axes
