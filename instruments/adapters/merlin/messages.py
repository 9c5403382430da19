"""Merlin's words on the line: `MPX,` and the length of what follows, then commands, replies, or a frame's header.

Neighbours: `control` (asks), `stream` (reads frames).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Final, Literal

from instruments.connections import Line, WrongReply
from instruments.errors import CommandRefused, InstrumentBusy, InstrumentError, Unsupported

PREFIX_BYTES: Final = 15  # MPX, ten digits, and their commas; the last comma counts into the length
FRAME_TYPES: Final = {"U08": ">u1", "U16": ">u2", "U32": ">u4"}
_LONGEST_REPLY_BYTES: Final = 1 << 16
Kind = Literal["GET", "SET", "CMD"]


def request(kind: Kind, name: str, value: str = "0") -> bytes:
    """One command, framed.

    >>> request("SET", "ACQUISITIONTIME", "1.5")
    b'MPX,0000000024,SET,ACQUISITIONTIME,1.5'
    """
    body = f"{kind},{name},{value}".encode("ascii")
    return b"MPX,%010d," % (len(body) + 1) + body


def payload_bytes(prefix: bytes | memoryview) -> int:
    """How many bytes follow a prefix. Raises WrongReply for bytes that are none.

    >>> payload_bytes(b"MPX,0000000024,")
    23
    """
    text = bytes(prefix)
    if len(text) != PREFIX_BYTES or text[:4] != b"MPX," or text[-1:] != b"," or not text[4:14].isdigit():
        raise WrongReply(f"{text!r} is no beginning of a message")
    return int(text[4:14]) - 1


def read_reply(line: Line, kind: Kind, name: str) -> str:
    """The value of a GET, nothing of the others. Raises WrongReply for what answers something else.

    Raises InstrumentBusy, Unsupported or CommandRefused as the Merlin's code says. Some servers do not count the comma
    of the prefix: then the one digit of the code is still to come.
    """
    size_bytes = payload_bytes(line.read_exactly(PREFIX_BYTES))
    if not 0 < size_bytes <= _LONGEST_REPLY_BYTES:
        raise WrongReply(f"a reply of {size_bytes} bytes")
    text = line.read_exactly(size_bytes)
    if text.endswith(b","):
        text += line.read_exactly(1)
    parts = text.decode("latin-1").split(",")
    expected = 4 if kind == "GET" else 3
    if len(parts) < expected or parts[0] != kind or parts[1] != name or not parts[-1].strip().isdigit():
        raise WrongReply(f"asked {kind} {name}, answered {text[:80]!r}")
    if (code := int(parts[-1])) != 0:
        raise _said_no(f"{kind} {name}", code)
    return ",".join(parts[2:-1])


def _said_no(asked: str, code: int) -> InstrumentError:
    match code:
        case 1:
            return InstrumentBusy(f"the Merlin is busy: {asked}; wait until it is idle")
        case 2:
            return Unsupported(f"the Merlin does not know {asked}; see its software's version")
        case _:
            return CommandRefused(f"the Merlin refuses {asked} (code {code}): out of its range")


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What stands before the counts of one frame."""

    sequence: int
    offset_bytes: int
    shape_px: tuple[int, int]
    number_type: str  # of NumPy, big-endian
    taken_at: str
    exposure_s: float
    thresholds_ev: tuple[float, ...]

    @property
    def frame_bytes(self) -> int:
        """Header and counts together."""
        rows, columns = self.shape_px
        return self.offset_bytes + rows * columns * int(self.number_type[2:])


def frame_header(data: bytes | memoryview) -> FrameHeader:
    """The header at the beginning of `data`. Raises WrongReply for what is none, or is of raw files."""
    try:
        if bytes(data[:4]) != b"MQ1,":
            raise ValueError("it does not begin with MQ1")
        offset_bytes = int(bytes(data[:32]).split(b",")[2])
        parts = bytes(data[:offset_bytes]).split(b"\0", 1)[0].decode("latin-1").split(",")
        return FrameHeader(
            sequence=int(parts[1]),
            offset_bytes=offset_bytes,
            shape_px=(int(parts[5]), int(parts[4])),
            number_type=FRAME_TYPES[parts[6]],
            taken_at=parts[9].strip(),
            exposure_s=float(parts[10]),
            thresholds_ev=tuple(round(kev * 1e3, 3) for kev in _numbers(parts[14:22])),
        )
    except (ValueError, IndexError, KeyError) as error:
        raise WrongReply(f"{bytes(data[:60])!r} is no header of a frame ({error!r})") from error


def stamped_s(header: bytes) -> float | None:
    """When a frame was taken by the Merlin's clock, seconds since 1970; None of software that names no time zone.

    >>> stamped_s(b"MQ1,000001,00384,01, ... ,MQ1A,1970-01-01T00:00:02.500000000Z,1000000ns,12")
    2.5
    """
    words = header.partition(b",MQ1A,")[2].split(b",")[0].decode("latin-1").strip()
    try:
        taken_at = datetime.fromisoformat(words)
    except ValueError:
        return None
    return taken_at.timestamp() if taken_at.tzinfo else None


def _numbers(texts: list[str]) -> Iterator[float]:
    """As many as there are before something else: older software writes fewer thresholds, or none."""
    for text in texts:
        try:
            number = float(text)
        except ValueError:
            return
        if not isfinite(number):
            raise ValueError(f"{text.strip()} is no threshold")
        yield number


def acquisition_header(data: bytes) -> dict[str, str]:
    r"""The lines of the header that comes before all frames, by their names. Raises WrongReply.

    >>> acquisition_header(b"HDR,\t\nGain:\tSLGM\nEnd\t  ")
    {'Gain': 'SLGM'}
    """
    if data[:4] != b"HDR,":
        raise WrongReply(f"{data[:40]!r} is no header of an acquisition")
    lines = (line.rstrip("\r").partition("\t") for line in data.decode("latin-1").split("\n"))
    return {name.rstrip(":"): value for name, tab, value in lines if tab and not name.startswith(("HDR", "End"))}
