"""Whom a command spoke to: its system calls as strace saw them, those of all its children included."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

CALLS = ("connect", "sendto", "sendmsg", "sendmmsg")
_FAMILY = re.compile(r"sa_family=(AF_\w+)")
_ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
_PORT = re.compile(r"sin6?_port=htons\((\d+)\)")
_OF_THIS_MACHINE = ("AF_UNIX", "AF_NETLINK", "AF_UNSPEC")


@dataclass(frozen=True, order=True)
class Reached:
    """Somebody a packet or a connection was meant for; `address` empty where there is none, as for a unix socket."""

    family: str
    address: str = ""
    port: int = 0

    @property
    def is_here(self) -> bool:
        """Whether this never leaves the machine."""
        if self.family in ("AF_INET", "AF_INET6"):
            return self.address == "::1" or self.address.removeprefix("::ffff:").startswith("127.")
        return self.family in _OF_THIS_MACHINE


@cache
def why_not_traced() -> str:
    """Why nothing can be traced here, or nothing."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"processes may not be traced here: {tried.stderr.strip()}"


def tracer(output: Path) -> list[str]:
    """What to put before a command so that its calls go to `output`; skips the test where that is not possible."""
    if because := why_not_traced():
        pytest.skip(because)
    return ["strace", "-f", "--seccomp-bpf", "-e", f"trace={','.join(CALLS)}", "-e", "signal=none", "-o", str(output)]


def abroad(output: Path) -> set[Reached]:
    """Those of a trace that are not on this machine."""
    found = reached(output)
    print(sorted(found))
    return {each for each in found if not each.is_here}


def reached(output: Path) -> set[Reached]:
    """Everybody whom the calls in a trace name."""
    found: set[Reached] = set()
    for line in output.read_text(encoding="utf-8", errors="replace").splitlines():
        families = _FAMILY.findall(line)
        addresses = [four or six for four, six in _ADDRESS.findall(line)]
        ports = [int(port) for port in _PORT.findall(line)]
        internet = [family for family in families if family in ("AF_INET", "AF_INET6")]
        assert len(internet) == len(addresses) == len(ports), f"a line of the trace that is not understood: {line}"
        found |= {Reached(*each) for each in zip(internet, addresses, ports, strict=True)}
        found |= {Reached(family) for family in families if family not in internet}
    return found
