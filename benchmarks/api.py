"""What the REST API takes: requests per second and latencies over 16 connections, as JSON.

    python -m benchmarks.api --seconds 10 --out benchmarks/results/api.json

The service runs in a process of its own on a new data folder (SQLite, synchronous FULL, group commit), every
submission with an Idempotency-Key and a spec whose check is remembered; writes are not limited. Client and service
share the machine: ratios to `ping` (GET /health, which looks at nothing) say more than rates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator import settings
from orchestrator.api.examples import FILE_NAME, FILE_TEXT, SUBMISSION
from orchestrator.client import Client
from orchestrator.errors import Unreachable
from orchestrator.versions import versions

CONNECTIONS = 16
PREFIX = "/api/v1"


def request(method: str, path: str, body: bytes = b"", key: str | None = None) -> bytes:
    """One HTTP/1.1 request, whole."""
    head = [f"{method} {PREFIX}{path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    if body:
        head.append("Content-Type: application/json")
    if key is not None:
        head.append(f"Idempotency-Key: {key}")
    return "\r\n".join([*head, "", ""]).encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> tuple[int, float]:
    """Status and seconds of one request on a connection that stays open."""
    begun = time.perf_counter()
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    await reader.readexactly(length)
    return int(head[9:12]), time.perf_counter() - begun


async def load(port: int, make: Callable[[], bytes], seconds: float) -> dict[str, float]:
    """What 16 connections get out of the service for so long; a first fifth of the time is not counted."""
    latencies: list[float] = []
    failed = 0
    begin = time.perf_counter()
    counted_from, until = begin + 0.2 * seconds, begin + 1.2 * seconds

    async def connection() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (now := time.perf_counter()) < until:
            status, took = await ask(reader, writer, make())
            if now >= counted_from:
                latencies.append(took)
                failed += status >= 300
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    ranked = statistics.quantiles(latencies, n=100)
    return {
        "per_s": round(len(latencies) / (time.perf_counter() - counted_from), 1),
        "p50_ms": round(ranked[49] * 1e3, 2),
        "p99_ms": round(ranked[98] * 1e3, 2),
        "max_ms": round(max(latencies) * 1e3, 2),
        "failed": failed,
    }


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """The service, answering."""
    command = "from workflows.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", "--alone", "--no-tokens", "--data", str(folder), "--port", str(port)],
        stdout=subprocess.DEVNULL,
    )
    with Client(f"http://127.0.0.1:{port}") as client:
        while process.poll() is None:
            try:
                client.version()
            except Unreachable:
                continue
            return process
    raise SystemExit("the service did not start")


def measure(seconds: float) -> dict[str, Any]:
    """Every operation in turn, on one service."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = int(sock.getsockname()[1])
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / settings.FILE_NAME).write_text("[serve]\nwrites_per_s = 0\n")  # one client is all there is
        process = start(Path(name), port)
        try:
            with Client(f"http://127.0.0.1:{port}") as client:
                client.upload(FILE_NAME, FILE_TEXT.encode())
                own = client.submit(SUBMISSION["spec"])["id"]
            body = json.dumps(SUBMISSION).encode()
            asked: dict[str, Callable[[], bytes]] = {
                "ping": lambda: request("GET", "/health"),
                "submit": lambda: request("POST", "/experiments", body, uuid.uuid4().hex),
                "status": lambda: request("GET", f"/experiments/{own}/status"),
                "document": lambda: request("GET", f"/experiments/{own}"),
                "list50": lambda: request("GET", "/experiments?limit=50"),
                "queue50": lambda: request("GET", "/queue?limit=50"),
                "ping_again": lambda: request("GET", "/health"),
            }
            results = {what: asyncio.run(load(port, make, seconds)) for what, make in asked.items()}
        finally:
            process.terminate()
            process.wait()
    ping = (results["ping"]["per_s"] + results["ping_again"]["per_s"]) / 2
    return {
        "connections": CONNECTIONS,
        "seconds": seconds,
        "cpu_count": os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "machine": platform.machine(),
        "versions": {key: value for key, value in versions().items() if key in ("stempilot", "fastapi", "sqlalchemy")},
        "results": results,
        "of_ping": {what: round(found["per_s"] / ping, 3) for what, found in results.items()},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    text = json.dumps(measure(options.seconds), indent=1)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
