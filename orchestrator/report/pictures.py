"""The report's figure style and its two ways into the page: line plots as inline SVG, images as embedded PNG.

Colours are Okabe and Ito's (Color Universal Design, 2008), readable with any colour vision.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from markupsafe import Markup

from instruments.plotting import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RULE,
    SKY,
    VERMILLION,
    YELLOW,
    round_length_nm,
    scale_bar,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE", "GREEN", "INK", "MUTED", "ORANGE", "PURPLE", "RULE", "SKY", "VERMILLION", "YELLOW", "Picture", "as_png",
    "as_svg", "bare", "canvas", "round_length_nm", "scale_bar",
]  # fmt: skip
SPECIES_COLOURS = (VERMILLION, SKY, PURPLE, GREEN, ORANGE, BLUE)
SPECIES_MARKERS = ("o", "s", "D", "^", "v", "P")
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.interpolation": "nearest",
    "image.origin": "lower",
}
WIDTH_INCHES = 11.0  # of the page's column


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure ready for the page; `caption` is plain text."""

    markup: Markup
    caption: str


@contextmanager
def canvas(width_inches: float, height_inches: float) -> Iterator[Figure]:
    """An empty figure in the report's style, drawn and saved inside the block."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(cast("Any", STYLE)):
        yield Figure(figsize=(width_inches, height_inches), layout="constrained")


def as_svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as one inline element; `name` keeps its inner ids apart from those of the page's other figures."""
    import matplotlib as mpl

    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"stempilot-{name}"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z0-9]+_\d+"', "", text)
    head, body = text.split(">", 1)
    head = re.sub(r'\s(width|height)="[\d.]+pt"', "", head)
    width_px = round(float(figure.get_size_inches()[0]) * 96)
    label = Markup(' role="img" aria-label="{}" style="width:{}px"').format(alt, width_px)
    return Markup(head) + label + Markup(">" + body)


def as_png(figure: Figure, alt: str, dots_per_inch: int = 144) -> Markup:
    """The figure as an embedded image of at most 256 colours, shown at its size in inches."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(dots_per_inch)
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    image = Image.fromarray(np.asarray(drawn.buffer_rgba())).convert("RGB")
    image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    image.save(packed, format="PNG", optimize=True)
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    width_px = round(float(figure.get_size_inches()[0]) * 96)
    return Markup('<img alt="{}" style="width:{}px" src="data:image/png;base64,{}">').format(alt, width_px, data)


def bare(axes: Axes) -> None:
    """An image's frame: no ticks, thin border."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=RULE)
