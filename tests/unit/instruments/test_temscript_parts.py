"""Units, exposures and packed images of the temscript adapter, without a server; and servers that answer nonsense."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    CommandRefused,
    InstrumentFault,
    LinkLost,
    Optics,
    ResultUnknown,
    ScanPattern,
)
from instruments.adapters.temscript_axes import AxisTable
from instruments.adapters.temscript_beam import TemscriptBeam
from instruments.adapters.temscript_card import CameraFacts, facts_of
from instruments.adapters.temscript_config import CameraConfig, TemscriptConfig
from instruments.adapters.temscript_exposure import Shot, camera_shot, raw_counts
from instruments.adapters.temscript_link import TemscriptLink, unpacked

TURNED = ((0.0, -2.0), (2.0, 0.0))  # the server's vectors are half as long and turned by 90 deg
CAMERA = CameraConfig(pixel_size_nm={10: 0.25, 20: 0.125})
FACTS = CameraFacts(rows=2048, columns=2048, binnings=(1, 2, 4))


def table(**config: Any) -> AxisTable:
    return AxisTable(TemscriptConfig(probe_current_pa=1.0, **config))


def shot(added_counts: int = 0, shape_px: tuple[int, int] = (2, 2)) -> Shot:
    return Shot(
        detectors=("CCD",), settings=(), axes={}, exposure_s=0.1, shape_px=shape_px, pixel_size_nm=1.0,
        added_counts=added_counts,
    )  # fmt: skip


def image(field_nm: float, side_px: int) -> AcquireFrame:
    return AcquireFrame(
        action_id="a",
        deadline_s=1,
        optics=Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=1),
        scan=ScanPattern(field_of_view_nm=field_nm, shape_px=(side_px, side_px), dwell_time_us=1e5, at_once=True),
        mode="CCD",
    )


@pytest.mark.parametrize("matrices", [{}, {"beam_shift": TURNED}])
def test_what_is_written_reads_back_as_it_was_asked(matrices: dict[str, Any]) -> None:
    axes = table(matrices=matrices)
    wanted = {"x_nm": 1500.0, "beta_deg": -3.0, "beam_shift_x_nm": 7.0, "beam_shift_y_nm": -4.0, "defocus_nm": 30.0}
    told = {write.endpoint: write.body for write in axes.writes(wanted, dict)}
    assert told["defocus"] == pytest.approx(-30e-9)
    if matrices:
        assert told["beam_shift"] == pytest.approx([-2e-9, -3.5e-9])
    read = axes.values({**told, "screen_position": "UNKNOWN"}, {})
    assert {name: read[name] for name in wanted} == pytest.approx(wanted)
    assert "screen" not in read


def test_half_a_vector_keeps_its_other_half() -> None:
    (write,) = table().writes({"image_shift_y_nm": 5.0}, lambda: {"image_shift_x_nm": 9.0, "image_shift_y_nm": 1.0})
    assert write.body == pytest.approx([9e-9, 5e-9])


@pytest.mark.parametrize(
    ("field_nm", "side_px", "index", "part", "binning"),
    [(512, 2048, 10, "FULL", 1), (512, 512, 10, "FULL", 4), (256, 512, 20, "FULL", 4), (64, 128, 20, "QUARTER", 4)],
)
def test_field_and_shape_choose_magnification_part_and_binning(
    field_nm: float, side_px: int, index: int, part: str, binning: int
) -> None:
    found = camera_shot(image(field_nm, side_px), "CCD", CAMERA, FACTS, None)
    assert found.axes["magnification_index"] == index
    assert found.settings[2].body == {"image_size": part, "binning": binning, "correction": "UNPROCESSED"}
    assert found.pixel_size_nm == pytest.approx(field_nm / side_px)


def test_the_magnification_stays_where_it_can() -> None:
    """256 nm of 512 px are half of the chip at one magnification, all of it at the other."""
    indices = {now: camera_shot(image(256, 512), "CCD", CAMERA, FACTS, now).axes for now in (10.0, 20.0)}
    assert {now: axes["magnification_index"] for now, axes in indices.items()} == {10.0: 10.0, 20.0: 20.0}


def test_counts_below_zero_are_lifted_or_refused_and_zeros_alone_are_no_frame() -> None:
    counts = np.array([[-3, 0], [5, 9]], np.int16)
    assert raw_counts(shot(3), {"CCD": counts}, may_be_empty=False)["CCD"].tolist() == [[0, 3], [8, 12]]
    with pytest.raises(AcquisitionFailed, match="added_counts to 3"):
        raw_counts(shot(), {"CCD": counts}, may_be_empty=False)
    with pytest.raises(AcquisitionFailed, match="zeros alone"):
        raw_counts(shot(), {"CCD": np.zeros((2, 2), np.int16)}, may_be_empty=False)
    with pytest.raises(AcquisitionFailed, match=r"\(2, 2\) px instead of \(4, 4\)"):
        raw_counts(shot(shape_px=(4, 4)), {"CCD": counts}, may_be_empty=False)


def test_images_come_in_either_byte_order_and_nothing_else_is_taken_for_one() -> None:
    big = np.arange(6, dtype=">i2")
    packed = {
        "width": 3, "height": 2, "type": "INT16", "endianness": "BIG", "encoding": "BASE64",
        "data": base64.b64encode(big.tobytes()).decode(),
    }  # fmt: skip
    assert unpacked("CCD", packed).tolist() == [[0, 1, 2], [3, 4, 5]]
    for wrong in ({"type": "FLOAT32"}, {"width": 4}, {"encoding": "HEX"}, {"data": "%"}, {"endianness": "PDP"}):
        with pytest.raises(AcquisitionFailed, match="no image of whole numbers"):
            unpacked("CCD", {**packed, **wrong})


@contextmanager
def answering(status: int, body: bytes) -> Iterator[TemscriptLink]:
    """A link to a server that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    link = TemscriptLink("127.0.0.1", server.server_address[1], 5.0)
    try:
        yield link
    finally:
        link.close()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_pickle_is_not_read() -> None:
    with answering(200, b"\x80\x02K\x01.") as link, pytest.raises(InstrumentFault, match="no JSON"):
        link.get("spot_size_index")


def test_a_server_of_another_kind_is_named() -> None:
    with answering(200, b'"2.0"') as link, pytest.raises(InstrumentFault, match="not answer as temscript"):
        facts_of(link)


def test_the_words_of_a_refusal_come_through() -> None:
    page = b"<p>Message: Error handling request: stage &lt;x&gt; blocked.</p>"
    with answering(500, page) as link, pytest.raises(CommandRefused, match="stage <x> blocked"):
        link.get("stage_position")


def test_an_unknown_detector_that_gives_nothing_is_a_lost_frame() -> None:
    with answering(200, json.dumps({}).encode()) as link, pytest.raises(AcquisitionFailed, match="no counts of Ceta"):
        link.acquire(("Ceta",), 5.0)


def test_nobody_there_is_a_lost_link() -> None:
    link = TemscriptLink("127.0.0.1", 9, 1.0)
    with pytest.raises(LinkLost, match="cannot be reached"):
        link.get("version")
    assert link.is_lost


def test_an_unblank_whose_answer_was_lost_is_not_sent_again() -> None:
    sent: list[str] = []

    class BreaksOff(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            sent.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), BreaksOff) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        link = TemscriptLink("127.0.0.1", server.server_port, 5.0)
        config = TemscriptConfig(probe_current_pa=1.0, host="127.0.0.1", port=server.server_port)
        beam = TemscriptBeam(config, link, is_simulated=True)
        try:
            with pytest.raises(ResultUnknown):
                beam.unblank(lambda: None)
            assert sent == ["false"]
            with pytest.raises(LinkLost):
                beam.blank()
            assert sent == ["false", "true", "true"]
        finally:
            beam.close()
            link.close()
            server.shutdown()
            thread.join()
