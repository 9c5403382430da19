"""What each adapter of ours was tried against: third-party code that really ran, our own models, or documents alone.

Neighbour: `registry` finds the adapters. Whoever adds one adds its line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "our own model",
    "measured data",
    "exercised against third-party code",
    "contract-tested only",
    "as the adapter in it",
    "not known",
]


@dataclass(frozen=True, slots=True)
class Evidence:
    """How far an adapter can be trusted before it has met a microscope."""

    kind: Kind
    against: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.against}" if self.against else self.kind


_THIRD_PARTY: Final[Kind] = "exercised against third-party code"
_OURS: Final[dict[str, Evidence]] = {
    "simulated": Evidence("our own model", "the simulator of this house"),
    "replay": Evidence("measured data", "recorded spectrum images, .dm3 and .dm4 images, and frames of our own"),
    "temscript": Evidence(_THIRD_PARTY, "temscript 2.1's own server and null microscope over loopback"),
    "instamatic": Evidence(_THIRD_PARTY, "instamatic 2.2's own server and simulated microscope over loopback"),
    "ophyd": Evidence(_THIRD_PARTY, "ophyd 1.11, ophyd-async 0.21; EPICS servers of caproto and p4p over loopback"),
    "tango": Evidence(_THIRD_PARTY, "pytango 10.3's own device server over loopback; its devices are ours"),
    "merlin": Evidence(_THIRD_PARTY, "LiberTEM-live 0.3's simulated Merlin over loopback"),
    "serialem": Evidence("contract-tested only", "a double of SerialEM's socket, written from its public sources"),
    "digitalmicrograph": Evidence(
        "contract-tested only", "our server in it, over a double of its Python module, written from public scripts"
    ),
    "ceos": Evidence("contract-tested only", "a double of CEOS's gateway, written from clients that are public"),
    "pyjem": Evidence("contract-tested only", "a double of the names it uses, written from PyJEM's public manual"),
    "autoscript": Evidence("contract-tested only", "a double of the names it uses, written from public scripts"),
    "gateway": Evidence("as the adapter in it", "tried with the twin over loopback, encrypted"),
    "worker": Evidence("as the adapter in it", "tried with replay in a Python of its own"),
    "nion": Evidence(_THIRD_PARTY, "nionswift 16.16 with nionswift-usim 5.4, out of process"),
    "micromanager": Evidence(_THIRD_PARTY, "Micro-Manager's core 12.5 with its demonstration devices, out of process"),
}


def evidence_of(adapter: str) -> Evidence:
    """That of one of our adapters; `not known` for a stranger's.

    >>> str(evidence_of("nion"))
    'exercised against third-party code: nionswift 16.16 with nionswift-usim 5.4, out of process'
    >>> str(evidence_of("mine"))
    'not known'
    """
    return _OURS.get(adapter, Evidence("not known", ""))
