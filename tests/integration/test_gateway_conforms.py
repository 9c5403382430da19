"""The kit on the twin behind `stempilot gateway`: over loopback, encrypted, in a process of its own."""

from __future__ import annotations

from pathlib import Path

from tests.integration.gateway_target import GatewayTarget
from tests.integration.instruments.conformed import conformed, names
from tests.integration.steady_twin import UNHURRIED, steady_config

SHORTER = UNHURRIED.model_copy(update={"stop_exposure_s": 16.0})


def test_the_twin_behind_a_gateway_conforms(tmp_path: Path, image_cache: Path) -> None:
    with GatewayTarget(tmp_path, "simulated", steady_config(image_cache)) as target:
        report = conformed(target, SHORTER, "simulated, behind a gateway")
    assert not names(report, "declared quirk"), report.table()
    assert names(report, "skipped") == {"stage_tilt"}, report.table()
