"""What a place that keeps personal data must be able to do. A new one is an entry in `inventory.personal_stores`."""

from __future__ import annotations

from typing import Protocol

from rolecall.pipelines.lifecycle.person import Person


class PersonalStore(Protocol):
    """One place. Both methods may be repeated; a kill between or inside calls leaves work, never damage."""

    @property
    def name(self) -> str:
        """As reports name it."""
        ...

    def holds(self, person: Person) -> int:
        """How many rows, files or entries hold the person; 0 means that nothing is left."""
        ...

    def erase(self, person: Person) -> int:
        """Remove the person, and return how many rows, files or entries went.

        Raises ConflictError or UnavailableError where somebody else is at work there: nothing is lost by trying again.
        """
        ...
