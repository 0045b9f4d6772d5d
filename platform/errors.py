"""Every error RoleCall raises on purpose.

    RoleCallError
    ├── InputError(ValueError)          something a caller gave cannot be used
    │   ├── SettingsError               a setting is unknown or out of range
    │   └── SchemaError                 a file or table has the wrong columns or types
    ├── NotFoundError(LookupError)      a release, job, table or part does not exist
    ├── ConflictError                   a compare-and-set lost: the world changed in between
    ├── IntegrityError                  bytes on disk are not the bytes that were recorded
    ├── GateRefusedError                a release may not be promoted
    └── UnavailableError(ConnectionError)  an outside service or a replica cannot answer now

Each message says what was got, what is allowed and what to do next. The three texts are the
exception's `args`, so an error survives pickling on its way through Ray.
"""

from __future__ import annotations


class RoleCallError(Exception):
    """Root of the tree. `got`: what was met; `allowed`: what would have been right; `todo`: the next step."""

    def __init__(self, got: str, allowed: str = "", todo: str = "") -> None:
        super().__init__(got, allowed, todo)
        self.got = got
        self.allowed = allowed
        self.todo = todo

    def __str__(self) -> str:
        parts = [self.got]
        if self.allowed:
            parts.append(f"Allowed: {self.allowed}")
        if self.todo:
            parts.append(f"Next: {self.todo}")
        return ". ".join(part.rstrip(".") for part in parts) + "."


class InputError(RoleCallError, ValueError):
    """Something a caller gave cannot be used."""


class SettingsError(InputError):
    """A setting is unknown, missing or out of range."""


class SchemaError(InputError):
    """A file or table has the wrong columns or types."""


class NotFoundError(RoleCallError, LookupError):
    """A release, job, table or part does not exist."""


class ConflictError(RoleCallError):
    """A compare-and-set lost: what it was judged against is no longer there."""


class IntegrityError(RoleCallError):
    """Bytes on disk are not the bytes that were recorded."""


class GateRefusedError(RoleCallError):
    """A release may not be promoted."""


class UnavailableError(RoleCallError, ConnectionError):
    """An outside service or a replica cannot answer now."""
