"""Instruments in processes of their own: the host that owns an adapter, the client, and the stop line beside them."""

from instruments.remote.client import CommandLine, RemoteInstrument, RemoteMicroscope, StopLine, connect
from instruments.remote.endpoint import Endpoint, endpoint_path, read_endpoint
from instruments.remote.host import InstrumentHost, open_by_name
from instruments.remote.status import InstrumentStatus, Lock, StopReport

__all__ = [
    "CommandLine",
    "Endpoint",
    "InstrumentHost",
    "InstrumentStatus",
    "Lock",
    "RemoteInstrument",
    "RemoteMicroscope",
    "StopLine",
    "StopReport",
    "connect",
    "endpoint_path",
    "open_by_name",
    "read_endpoint",
]
