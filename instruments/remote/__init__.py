"""Instruments in processes of their own: the host that owns an adapter, the client, and the stop line beside them."""

from instruments.remote.client import (
    CommandLine,
    Line,
    RemoteInstrument,
    RemoteMicroscope,
    StopLine,
    connect,
    dial_command_line,
)
from instruments.remote.endpoint import Endpoint, Listening, endpoint_path, read_endpoint
from instruments.remote.host import InstrumentHost, open_by_name
from instruments.remote.status import InstrumentStatus, Lock, StopReport

__all__ = [
    "CommandLine",
    "Endpoint",
    "InstrumentHost",
    "InstrumentStatus",
    "Line",
    "Listening",
    "Lock",
    "RemoteInstrument",
    "RemoteMicroscope",
    "StopLine",
    "StopReport",
    "connect",
    "dial_command_line",
    "endpoint_path",
    "open_by_name",
    "read_endpoint",
]
