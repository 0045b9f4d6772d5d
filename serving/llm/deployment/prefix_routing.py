"""Which replica a prompt goes to: the one that has most of it in its cache. No Ray.

A router remembers, for each replica, the prefixes of the prompts it sent there, as hashes of whole blocks chained from
the prompt's salt; the oldest are forgotten. The rule:

1. The replica with the longest remembered prefix is meant, the least busy one among equals.
2. It gets the prompt unless it has more than `imbalance` requests more than the least busy replica.
3. Then, and where no whole block is known anywhere, the less busy of two replicas drawn at random gets it, and learns
   the prefix: what everybody asks for ends up on every replica.

What a router remembers may be gone from a replica's cache, and other routers send there too; a wrong guess costs the
time to compute the prefix again.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)
BLOCK = 16
REMEMBERED = 65_536  # blocks a replica: a million tokens


class PrefixRouting(Generic[Name]):
    """What one router remembers of replicas, and its choices. Not safe for several threads at once."""

    def __init__(
        self,
        *,
        imbalance: int = 8,
        block: int = BLOCK,
        remembered: int = REMEMBERED,
        randomness: random.Random | None = None,
    ) -> None:
        self._imbalance, self._block, self._remembered = imbalance, block, remembered
        self._random = randomness or random.Random()
        self._known: dict[Name, OrderedDict[int, None]] = {}

    def choose(self, prompt: Sequence[int], salt: str, loads: Mapping[Name, float]) -> list[Name]:
        """Replicas to try, the best first; `loads`: requests that each has. Empty only where `loads` is."""
        meant = self._meant(self._chain(prompt, salt), loads)
        if meant is None:
            return self._two(loads)
        return [meant, *(name for name in self._two(loads) if name != meant)]

    def matched(self, prompt: Sequence[int], salt: str, name: Name) -> int:
        """Tokens of the prompt's beginning that were sent to this replica before."""
        return self._block * self._length(self._chain(prompt, salt), name)

    def sent(self, prompt: Sequence[int], salt: str, name: Name) -> None:
        """A replica took this prompt."""
        known = self._known.setdefault(name, OrderedDict())
        for mark in reversed(self._chain(prompt, salt)):  # a prefix's beginning is forgotten after its end
            known[mark] = None
            known.move_to_end(mark)
        while len(known) > self._remembered:
            known.popitem(last=False)

    def keep(self, names: Iterable[Name]) -> None:
        """Forget all other replicas."""
        kept = set(names)
        self._known = {name: known for name, known in self._known.items() if name in kept}

    def _meant(self, chain: Sequence[int], loads: Mapping[Name, float]) -> Name | None:
        lengths = {name: self._length(chain, name) for name in loads}
        longest = max(lengths.values(), default=0)
        if not longest:
            return None
        best = min((name for name in loads if lengths[name] == longest), key=loads.__getitem__)
        return best if loads[best] - min(loads.values()) <= self._imbalance else None

    def _two(self, loads: Mapping[Name, float]) -> list[Name]:
        drawn = self._random.sample(list(loads), min(2, len(loads)))
        return sorted(drawn, key=loads.__getitem__)

    def _length(self, chain: Sequence[int], name: Name) -> int:
        """Blocks of the longest known prefix."""
        known: Mapping[int, None] = self._known.get(name, {})
        for count, mark in enumerate(chain):
            if mark not in known:
                return count
        return len(chain)

    def _chain(self, prompt: Sequence[int], salt: str) -> list[int]:
        """A hash for each whole block and all before it."""
        marks: list[int] = []
        mark = hash(("salt", salt))
        for end in range(self._block, len(prompt) + 1, self._block):
            mark = hash((mark, *prompt[end - self._block : end]))
            marks.append(mark)
        return marks
