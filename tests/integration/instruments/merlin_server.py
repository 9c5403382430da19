"""LiberTEM-live's simulated Merlin on loopback, run by the Python of `.venv/merlin`: FILE.hdr ROWS COLUMNS CACHED.

Prints its ports (control, data) and ends when its standard input does.
"""

from __future__ import annotations

import json
import sys

from libertem_live.detectors.merlin.sim import CameraSim


def main() -> None:
    path, rows, columns, cached = sys.argv[1:]
    camera = CameraSim(
        path=path, nav_shape=(int(rows), int(columns)), host="127.0.0.1", data_port=0, control_port=0, trigger_port=0,
        wait_trigger=True, cached=cached,
    )  # fmt: skip
    camera.start()
    camera.wait_for_listen()
    print(json.dumps([camera.control_t.port, camera.server_t.port]), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
