"""What stands in a ledger besides frames, as it is stored: a new process books it again. Neighbour: `link_watch`."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from instruments.dose_ledger import DoseLedger
from instruments.models import Record
from instruments.regions import Box
from instruments.units import electrons


class Region(Record):
    """Where a beam may have stood: a rectangle of the specimen, and the least area that it lit."""

    x_min_nm: float
    x_max_nm: float
    y_min_nm: float
    y_max_nm: float
    least_nm2: float = Field(default=1.0, gt=0)

    @classmethod
    def of(cls, box: Box, least_nm2: float) -> Region:
        """The region of a box; its numbers are computed, so they are not validated."""
        return cls.model_construct(
            x_min_nm=box.x_min_nm, x_max_nm=box.x_max_nm, y_min_nm=box.y_min_nm, y_max_nm=box.y_max_nm,
            least_nm2=least_nm2,
        )  # fmt: skip

    @property
    def box(self) -> Box:
        """Its rectangle."""
        return Box(
            x_min_nm=self.x_min_nm, x_max_nm=self.x_max_nm, y_min_nm=self.y_min_nm, y_max_nm=self.y_max_nm
        )  # fmt: skip


class ExtraDebit(Record):
    """Electrons that came with no frame of their own: of a procedure, of a lost link, of a frame taken elsewhere."""

    kind: Literal["extra_debit"] = "extra_debit"
    reason: str
    region: Region
    electrons: float = Field(description="may all have gone to one place of the region")
    is_counted: bool = Field(default=True, description="False: they are in the sum already, with their frame")
    settles: AwareDatetime | None = Field(default=None, description="of a lost link: when that was")

    def book(self, ledger: DoseLedger) -> None:
        """Into the ledger."""
        ledger.add_within(self.region.box, self.electrons, self.region.least_nm2, is_counted=self.is_counted)


class LinkLoss(Record):
    """A link that was lost, the beam on: nobody knows it dark from then on. Settled by the `ExtraDebit` after it."""

    kind: Literal["link_loss"] = "link_loss"
    lost_at: AwareDatetime
    because: str
    current_pa: float = Field(ge=0, description="at most, its uncertainty included")
    region: Region | None = Field(default=None, description="None: nothing was ever lit or placed")

    def widened(self, region: Region, current_pa: float) -> LinkLoss:
        """With what is found out later: where the beam may stand as well, and the least current it had."""
        if self.region is not None:
            least_nm2 = min(region.least_nm2, self.region.least_nm2)
            region = Region.of(region.box.joined(self.region.box), least_nm2)
        return self.model_copy(update={"region": region, "current_pa": max(self.current_pa, current_pa)})

    def debit(self, duration_s: float) -> ExtraDebit:
        """What the beam may have burnt in this time, wherever it may have been. Raises ValueError without a region."""
        if self.region is None:
            raise ValueError("where the beam stood is not known: widen the loss by where it stands now")
        return ExtraDebit(
            reason=f"{self.because}: {self.lost_at:%Y-%m-%d %H:%M:%S} UTC, dark for sure {duration_s:.0f} s later",
            region=self.region,
            electrons=electrons(self.current_pa, duration_s),
            settles=self.lost_at,
        )


BookEntry = ExtraDebit | LinkLoss
