"""Why the engine refuses a request, or ends. Each refines a standard exception, so that no other package is needed.

ValueError ── ContextOverflowError      prompt and max_tokens do not fit; nothing is ever cut off instead
RuntimeError ┬─ EngineBusyError         too much is queued; come back in `retry_after` seconds
             └─ RankError               a process that holds a part of the model failed, was lost or found no room
"""

from __future__ import annotations


class ContextOverflowError(ValueError):
    """A prompt, or a prompt with its max_tokens, is longer than the context."""


class EngineBusyError(RuntimeError):
    """The queue is full. `retry_after`: seconds until what waits now should have been worked off."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.args[0]}; try again in {self.retry_after:.0f} s"


class RankError(RuntimeError):
    """One of the processes that share a model failed or was lost, or there is no room for one. All have been ended."""
