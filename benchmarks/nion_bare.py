"""Scans of nionswift-usim by Nion's own classes alone, one for each line read; for `instrument_rows`.

Runs in the Python that has Nion Swift: `python -P nion_bare.py SIDE_PX PIXEL_TIME_US FIELD_NM`.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
import time
from pathlib import Path

from nion.instrumentation import HardwareSource, camera_base, scan_base  # pyright: ignore[reportMissingImports]
from nion.usim_device import DeviceConfiguration  # pyright: ignore[reportMissingImports]

_LOOK_S = 0.001


def main() -> None:
    """Scan for every line until there are no more."""
    side_px, pixel_time_us, field_nm = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    folder = Path(tempfile.mkdtemp(prefix="nion-bare-"))
    HardwareSource.run()
    camera_base.run(folder)
    scan_base.run(folder)
    DeviceConfiguration.AcquisitionContextConfiguration(sample_index=0, set_configuration_location=False).run()
    scan = HardwareSource.HardwareSourceManager().get_hardware_source_for_hardware_source_id("usim_scan_device")
    for index in range(scan.channel_count):
        scan.set_channel_enabled(index, scan.get_channel_state(index).name in ("HAADF", "MAADF"))
    for _ in sys.stdin:
        while scan.is_recording:
            time.sleep(_LOOK_S)
        parameters = copy.copy(scan.get_frame_parameters(0))
        parameters.fov_nm, parameters.pixel_size = field_nm, (side_px, side_px)
        parameters.pixel_time_us, parameters.flyback_time_us = pixel_time_us, 0.0
        found = scan.start_recording(frame_parameters=parameters).grab_xdatas(timeout=60.0)
        sys.stdout.write(f"{len(found)}\n")
        sys.stdout.flush()
    sys.stdout.flush()
    os._exit(0)  # Nion's threads do not end by themselves


if __name__ == "__main__":
    main()
