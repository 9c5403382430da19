"""Reading: lists and their cursors, frames as picture, array and file, ranges, the journal as pages and as a stream."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.unit.orchestrator.api.serving import STRUCTURE, V1, Service, submitted, upload, with_frames


def pages(service: Service, path: str, items: str, answered: str, asked: str) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    cursor = ""
    while True:
        page = service.client().get(V1 + path + cursor).json()
        found.append(page[items])
        if page[answered] is None:
            return found
        cursor = f"&{asked}={page[answered]}"


def test_lists_go_on_where_the_page_ended_whatever_came_meanwhile(service: Service) -> None:
    client = service.client()
    own = [submitted(client, priority=seq % 2) for seq in range(5)]
    first = client.get(f"{V1}/experiments?limit=2").json()
    later = submitted(client)
    second = client.get(f"{V1}/experiments?limit=2&cursor={first['next_cursor']}").json()
    assert [line["id"] for line in first["experiments"] + second["experiments"]] == own[::-1][:4]
    listed = pages(service, "/experiments?limit=2", "experiments", "next_cursor", "cursor")
    assert [len(page) for page in listed] == [2, 2, 2]
    assert [line["id"] for page in listed for line in page] == [later, *own[::-1]]
    queued = pages(service, "/queue?limit=4", "entries", "next_cursor", "cursor")
    assert [entry["id"] for page in queued for entry in page] == [own[1], own[3], own[0], own[2], own[4], later]


def test_lists_are_filtered(service: Service) -> None:
    client = service.client()
    first, second = submitted(client), submitted(client)
    service.queue.hold(second)
    child = service.catalogue.create_experiment(
        name="a child", spec={}, seed=0, engine="local", options={}, parent_id=first
    )
    for query, wanted in {
        "": [second, first],
        "?status=held": [second],
        "?status=running": [],
        "?instrument=simulated": [second, first],
        "?instrument=replay": [],
        "?name=Small raster": [second, first],
        "?name=Small": [],
        "?children=true": [child, second, first],
    }.items():
        found = client.get(f"{V1}/experiments{query}").json()["experiments"]
        assert [line["id"] for line in found] == wanted, query
    for query, wanted in {"status=held": [second], "status=queued,held,queued": [first, second]}.items():
        assert [entry["id"] for entry in client.get(f"{V1}/queue?{query}").json()["entries"]] == wanted
    assert client.get(f"{V1}/queue?status=held,done").status_code == 422


def test_an_id_may_be_abbreviated_while_it_is_unique(service: Service) -> None:
    own = submitted(service.client())
    assert service.client().get(f"{V1}/experiments/{own[:20]}").json()["id"] == own
    assert service.client().get(f"{V1}/experiments/{own[:7]}").status_code == 422
    unknown = service.client().get(f"{V1}/experiments/{'f' * 32}")
    assert unknown.status_code == 404
    assert str(service.catalogue.data_folder) not in unknown.text


def test_decisions_and_frames_in_order(service: Service) -> None:
    own = with_frames(service, 3)
    decisions = pages(service, f"/experiments/{own}/decisions?limit=2", "decisions", "next_after", "after")
    assert [decision["seq"] for page in decisions for decision in page] == [1, 2, 3]
    assert decisions[0][1]["score"] == 1.0
    frames = [
        frame
        for page in pages(service, f"/experiments/{own}/frames?limit=1", "frames", "next_after", "after")
        for frame in page
    ]
    assert [frame["ordinal"] for frame in frames] == [1, 2, 3]
    alone = service.client().get(f"{V1}/experiments/{own}/frames/{frames[0]['id']}").json()
    assert alone["detectors"]["maadf"] == {"dtype": "<u2", "shape": [3, 24, 32]}
    assert alone["dose_e_per_a2"] == frames[0]["dose_e_per_a2"]
    other = submitted(service.client())
    assert service.client().get(f"{V1}/experiments/{other}/frames/{frames[0]['id']}").status_code == 404


@pytest.fixture
def frame_url(service: Service) -> str:
    own = with_frames(service, 1)
    return f"{V1}/experiments/{own}/frames/{service.catalogue.frames(own)[0].id}"


def test_the_array_is_what_the_detector_counted(service: Service, frame_url: str) -> None:
    stored = service.catalogue.load_frame(frame_url.rsplit("/", 1)[1])
    for detector, counts in stored.counts.items():
        answer = service.client().get(f"{frame_url}/data?detector={detector}")
        shape = tuple(map(int, answer.headers["x-shape"].split(",")))
        found = np.frombuffer(answer.content, answer.headers["x-dtype"]).reshape(shape)
        np.testing.assert_array_equal(found, counts)
        digest = base64.b64decode(answer.headers["repr-digest"].removeprefix("sha-256=:").removesuffix(":"))
        assert digest == hashlib.sha256(answer.content).digest()
    assert service.client().get(f"{frame_url}/data").headers["x-detector"] == "maadf"
    assert service.client().get(f"{frame_url}/data?detector=eels").status_code == 404


def test_a_part_of_it(service: Service, frame_url: str) -> None:
    client = service.client()
    whole = client.get(f"{frame_url}/data")
    size = len(whole.content)
    for text, part in {
        "bytes=0-63": slice(0, 64), f"bytes={size - 10}-": slice(size - 10, size), "bytes=-16": slice(size - 16, size),
        "bytes=100-999999": slice(100, size),
    }.items():  # fmt: skip
        answer = client.get(f"{frame_url}/data", headers={"Range": text})
        assert (answer.status_code, answer.content) == (206, whole.content[part])
        assert answer.headers["content-range"] == f"bytes {part.start}-{part.stop - 1}/{size}"
        assert answer.headers["etag"] == whole.headers["etag"]
    for text in (f"bytes={size}-", "bytes=-0"):
        outside = client.get(f"{frame_url}/data", headers={"Range": text})
        assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{size}")
    for text in ("lines=1-2", "bytes=5-2", "bytes=", "bytes=0-1,3-4"):
        assert client.get(f"{frame_url}/data", headers={"Range": text}).content == whole.content
    for tag, status in {whole.headers["etag"]: 206, '"other"': 200}.items():
        answer = client.get(f"{frame_url}/data", headers={"Range": "bytes=0-1", "If-Range": tag})
        assert answer.status_code == status
    unchanged = client.get(f"{frame_url}/data", headers={"If-None-Match": whole.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    head = client.head(f"{frame_url}/data")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")


def test_the_picture_has_the_contrast_of_most_pixels_and_its_scale(service: Service, frame_url: str) -> None:
    answer = service.client().get(f"{frame_url}/image.png?detector=bf")
    picture = Image.open(io.BytesIO(answer.content))
    grey = np.asarray(picture)
    counts = service.catalogue.load_frame(frame_url.rsplit("/", 1)[1]).total("bf")
    assert (picture.mode, grey.shape) == ("L", counts.shape)
    black, white = float(answer.headers["x-black-counts"]), float(answer.headers["x-white-counts"])
    assert (black, white) == tuple(np.percentile(counts, [0.5, 99.8]))
    expected = np.clip((counts - black) / (white - black), 0, 1) * 255
    assert np.abs(grey - expected).max() <= 0.5
    assert float(answer.headers["x-pixel-size-nm"]) == pytest.approx(0.2)
    assert picture.info["Pixel size (nm)"] == "0.2"


def test_the_file_is_the_one_on_disk_and_damage_is_said(service: Service, frame_url: str) -> None:
    client = service.client()
    stored = service.catalogue.frames(frame_url.split("/")[4])[0]
    answer = client.get(f"{frame_url}/file")
    assert answer.headers["etag"] == f'"{stored.sha256}"'
    with h5py.File(io.BytesIO(answer.content)) as file:
        assert list(file)
    path = service.catalogue.data_folder / stored.path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for url in (f"{frame_url}/file", f"{frame_url}/data", f"{frame_url}/image.png", frame_url):
        damaged = client.get(url)
        assert (damaged.status_code, damaged.json()["type"]) == (500, "urn:stempilot:problem:damaged")
        assert stored.path in damaged.json()["detail"]


def test_a_report_is_there_once_it_was_written(service: Service) -> None:
    own = submitted(service.client())
    missing = service.client().get(f"{V1}/experiments/{own}/report")
    assert (missing.status_code, missing.json()["current_status"]) == (409, "queued")
    folder = service.catalogue.data_folder / "experiments" / own
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text("<!doctype html><title>x</title>")
    there = service.client().get(f"{V1}/experiments/{own}/report")
    assert there.headers["content-type"].startswith("text/html")
    assert "sandbox" in there.headers["content-security-policy"]


def test_an_uploaded_file_comes_back_and_a_wrong_one_is_refused(service: Service) -> None:
    client, data = service.client(), STRUCTURE.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    url = f"{V1}/files/{digest}/WSe2.extxyz"
    assert client.head(url).status_code == 404
    assert [client.put(url, content=data).status_code for _ in range(2)] == [201, 200]
    assert upload(client) == f"sha256:{digest}/WSe2.extxyz"
    assert client.get(url).content == data
    assert client.head(url).headers["content-length"] == str(len(data))
    wrong = client.put(url, content=data + b" ")
    assert (wrong.status_code, wrong.json()["errors"][0]["parameter"]) == (422, "sha256")
    for name in ("..", ".hidden", "a%2Fb", "a%00b"):
        assert client.put(f"{V1}/files/{digest}/{name}", content=data).status_code in (404, 422)


def test_a_file_may_be_larger_than_other_bodies(service: Service) -> None:
    data = b"x" * (2 << 20)
    digest = hashlib.sha256(data).hexdigest()
    assert service.client().put(f"{V1}/files/{digest}/large.npz", content=data).status_code == 201


def test_the_journal_in_pages(service: Service) -> None:
    own = with_frames(service, 2)
    client = service.client()
    whole = client.get(f"{V1}/experiments/{own}/events").json()
    assert [event["kind"] for event in whole["events"]] == [
        "created", "intended", "frame_stored", "observed", "intended", "frame_stored", "observed",
    ]  # fmt: skip
    part = client.get(f"{V1}/experiments/{own}/events?after=2&limit=2").json()
    assert (part["events"], part["next_after"]) == (whole["events"][2:4], 4)
    assert not whole["is_final"]
    assert client.get(f"{V1}/experiments/{own}/events?after=7").json()["next_after"] == 7


def stream(service: Service, own: str, **headers: str) -> list[dict[str, str]]:
    """The messages of a stream that ends."""
    with service.client().stream(
        "GET", f"{V1}/experiments/{own}/events", headers={"Accept": "text/event-stream", **headers}
    ) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


def test_the_journal_as_a_stream_ends_with_the_experiment_and_goes_on_where_it_broke(service: Service) -> None:
    own = with_frames(service, 1)
    service.queue.cancel(own)
    client = service.client()
    first, *events, end = stream(service, own)
    journal = client.get(f"{V1}/experiments/{own}/events").json()["events"]
    assert first == {"retry": "1000"}
    assert [json.loads(message["data"]) for message in events] == journal
    assert [(message["id"], message["event"]) for message in events] == [(str(e["seq"]), e["kind"]) for e in journal]
    assert end == {"event": "end", "data": '{"status":"cancelled"}'}
    resumed = stream(service, own, **{"Last-Event-ID": "3"})
    assert resumed[1:-1] == events[3:]
    finished = client.get(
        f"{V1}/experiments/{own}/events",
        headers={"Accept": "text/event-stream", "Last-Event-ID": str(journal[-1]["seq"])},
    )
    assert finished.status_code == 204
    assert client.get(f"{V1}/experiments/{own}/events", headers={"Last-Event-ID": "x"}).status_code == 422
    head = client.head(f"{V1}/experiments/{own}/events", headers={"Accept": "text/event-stream"})
    assert (head.status_code, head.headers["content-type"]) == (200, "application/json")
