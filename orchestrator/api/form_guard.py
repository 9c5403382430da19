"""Forms that only our own pages can send: a hidden field that follows from a secret of this installation.

`guards` already refuses what another site sends; this is the second lock. The secret outlives restarts, so that the
stop button of a page that was opened yesterday works.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from orchestrator.api.secret_file import kept_secret

KEY_NAME: Final = "page-key"


class FormGuard:
    """Makes and checks the hidden field."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def open(cls, data_folder: Path) -> Self:
        """The guard of a data folder; its secret is made when there is none. Raises StorageError."""
        return cls(kept_secret(data_folder / KEY_NAME))

    def field(self, whose: str) -> str:
        """What the forms shown to `whose` (a token's id, or `local`) must send back."""
        return hmac.new(self._key, f"form:{whose}".encode(), sha256).hexdigest()

    def is_ours(self, whose: str, given: str) -> bool:
        """Whether a form was made here for them."""
        return hmac.compare_digest(self.field(whose), given)
