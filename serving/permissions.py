"""What people allow now, which may be less than when the release was built.

A release may be served for days, or come back by a rollback; a consent taken back since must hold at once. So whoever
is about to be shown is looked up in the newest materialised consents, and among those who asked to be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rolecall.serving.people_policy import Permission

FORGOTTEN = Permission(consent=False)


class OnlineConsent(Protocol):
    """Newest stored consents, in order; a value that is not known is None."""

    def online_consent(self, candidate_ids: Sequence[str], *, at: datetime) -> Sequence[Mapping[str, Any]]: ...


class Forgotten(Protocol):
    """Who asked to be forgotten: True for each such id, bool[n]."""

    def contains(self, candidate_ids: Sequence[str | None]) -> npt.NDArray[np.bool_]: ...


class OnlinePermissions:
    """The newest permission of each person: a PermissionSource."""

    def __init__(self, consents: OnlineConsent, clock: Callable[[], datetime], *, forgotten: Forgotten) -> None:
        self._consents = consents
        self._clock = clock
        self._forgotten = forgotten

    def permissions(self, candidate_ids: Sequence[str]) -> list[Permission | None]:
        """None where nothing newer than the release is known."""
        if not candidate_ids:
            return []
        gone = self._forgotten.contains(candidate_ids)
        rows = self._consents.online_consent(candidate_ids, at=self._clock())
        return [FORGOTTEN if asked else _permission(row) for asked, row in zip(gone, rows, strict=True)]


def _permission(row: Mapping[str, Any]) -> Permission | None:
    if row.get("consent") is None:
        return None
    return Permission(
        consent=bool(row["consent"]),
        visibility=row.get("visibility") or "all",
        hidden_from=tuple(row.get("hidden_from") or ()),
    )
