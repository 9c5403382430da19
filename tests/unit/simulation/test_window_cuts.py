"""Windows of a periodic function, those that cross its edges too."""

import numpy as np

from simulation.backend import backend
from simulation.window_cuts import WindowCuts


def test_each_wave_meets_its_own_window():
    rng = np.random.default_rng(0)
    function = rng.normal(size=(20, 24)) + 1j * rng.normal(size=(20, 24))
    waves = rng.normal(size=(8, 6, 4)) + 1j * rng.normal(size=(8, 6, 4))
    corners = np.array([[3, 0], [3, 5], [3, 22], [17, 23], [17, 1], [0, 0], [19, 21], [3, 5]])
    expected = [
        wave * np.roll(function, (-row, -column), (0, 1))[:6, :4]
        for wave, (row, column) in zip(waves, corners.tolist(), strict=True)
    ]
    for device in ("numpy", "cpu"):
        on = backend(device, "double")
        made = on.asarray(waves)
        WindowCuts(corners, (6, 4), function.shape, on).multiply(made, on.asarray(function))
        np.testing.assert_allclose(on.to_numpy(made), expected, rtol=1e-14)
        at_once = on.asarray(waves)
        on.fused.multiply_by_windows(at_once, on.asarray(function), on.asarray(corners))
        np.testing.assert_allclose(on.to_numpy(at_once), expected, rtol=1e-14)
