"""A vendor's library, doubled, in a worker: where its column is kept, what it does wrong, what it was told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DOUBLES = Path(__file__).with_name("vendor_doubles")


class VendorTarget:
    """The folder of one doubled microscope."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fault = folder / "fault"

    @contextmanager
    def doing_wrong(self, fault: str) -> Iterator[None]:
        self._fault.write_text(fault)
        try:
            yield
        finally:
            self._fault.unlink()

    @property
    def diary(self) -> list[str]:
        path = self.folder / "diary"
        return path.read_text().split() if path.exists() else []

    def since(self, entry_count: int) -> list[str]:
        return self.diary[entry_count:]


@contextmanager
def doubled(folder: Path) -> Iterator[VendorTarget]:
    """Workers started meanwhile have this column."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VENDOR_DOUBLE", str(folder))
        yield VendorTarget(folder)
