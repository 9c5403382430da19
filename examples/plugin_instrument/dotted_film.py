"""What the maker would ship: a scanned beam over a film with dots, in micrometres and seconds."""

from __future__ import annotations

import threading

import numpy as np

DOTS, SIDE_UM, RADIUS_UM, ELECTRONS_PER_S = 4000, 2.0, 0.003, 3e7


class Column:
    """A stage, a blanker, and one detector; `halt` ends a scan from any thread."""

    def __init__(self, seed=1):
        self.x_um = self.y_um = 0.0
        self.is_blanked = True
        self._rng = np.random.default_rng(seed)
        self._dots_um = np.random.default_rng(5).uniform(-SIDE_UM / 2, SIDE_UM / 2, (DOTS, 2))
        self._halted = threading.Event()

    def move(self, x_um, y_um):
        """It goes wherever it is sent: limits are the adapter's affair."""
        self.x_um, self.y_um = x_um, y_um

    def halt(self):
        """Blank, and end what runs."""
        self.is_blanked = True
        self._halted.set()

    def go_on(self):
        """Scan again."""
        self._halted.clear()

    def scan(self, width_um, rows, columns, dwell_s):
        """Counts, (rows, columns), of as long as that takes; None if it was halted."""
        if self._halted.wait(rows * columns * dwell_s):
            return None
        pixel_um = width_um / columns
        y_um = self.y_um + (np.arange(rows) - rows / 2) * pixel_um
        x_um = self.x_um + (np.arange(columns) - columns / 2) * pixel_um
        across = np.exp(-(((x_um - self._dots_um[:, :1]) / RADIUS_UM) ** 2))
        down = np.exp(-(((y_um - self._dots_um[:, 1:]) / RADIUS_UM) ** 2))
        bright = 0.0 if self.is_blanked else 0.05 + down.T @ across
        return self._rng.poisson(bright * np.ones((rows, columns)) * dwell_s * ELECTRONS_PER_S).astype(np.uint32)
