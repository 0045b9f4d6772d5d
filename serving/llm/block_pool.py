"""The blocks of the key-value cache: who holds them, and which still hold a known prefix. No model, no tensors.

A full block is entered under (the prefix before it, its tokens); the dictionary compares both, and the prefix before
it was found the same way, so two prefixes are the same only if every token is: a collision of hashes costs time, never
correctness. The chain's root is the salt, so tenants with different salts share nothing. A block nobody holds keeps its
content until it is needed: free blocks queue up, unknown content first, then least recently released.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class OutOfBlocksError(MemoryError):
    """More blocks were asked for than are free."""


class PrefixKey(NamedTuple):
    """What a full block holds: `parent` is the prefix id of the block before it, or the salt."""

    parent: Hashable
    tokens: tuple[int, ...]


@dataclass(slots=True)
class Block:
    """`holders` sequences use it; `key` and `prefix` are set while its content is entered in the prefix cache."""

    holders: int = 0
    key: PrefixKey | None = None
    prefix: int = -1


class BlockPool:
    """`blocks` blocks of `block_size` tokens with reference counts and a prefix cache."""

    def __init__(self, blocks: int, block_size: int) -> None:
        if blocks < 1 or block_size < 1:
            raise ValueError(f"got {blocks} blocks of {block_size} tokens; allowed: at least one of each")
        self.block_size = block_size
        self._blocks = [Block() for _ in range(blocks)]
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        self._known: dict[PrefixKey, int] = {}
        self._prefixes = 0

    @property
    def size(self) -> int:
        """Blocks in all."""
        return len(self._blocks)

    @property
    def free(self) -> int:
        """Blocks nobody holds, those with cached content included."""
        return len(self._free)

    def blocks_for(self, tokens: int) -> int:
        """How many blocks that many tokens fill or begin."""
        return -(-tokens // self.block_size)

    def holders(self, block: int) -> int:
        """How many sequences use this block."""
        return self._blocks[block].holders

    def is_cached(self, block: int) -> bool:
        """Whether the block's content is entered in the prefix cache and must not be written."""
        return self._blocks[block].key is not None

    def allocate(self, count: int) -> list[int]:
        """Take `count` free blocks; their content is forgotten. Raises OutOfBlocksError, taking none."""
        if count > self.free:
            raise OutOfBlocksError(f"got a wish for {count} blocks; {self.free} of {self.size} are free")
        return [self._take_oldest() for _ in range(count)]

    def hold(self, blocks: Iterable[int]) -> None:
        """One more sequence uses each of these: a fork, or a cached prefix found again."""
        for index in blocks:
            block = self._blocks[index]
            if block.holders == 0:
                del self._free[index]
            block.holders += 1

    def release(self, blocks: Sequence[int]) -> None:
        """One sequence fewer uses each; of a prefix the end is given up before the beginning."""
        for index in reversed(blocks):
            block = self._blocks[index]
            if block.holders == 0:
                raise ValueError(f"block {index} is released, but nobody holds it")
            block.holders -= 1
            if block.holders == 0:
                self._free[index] = None
                self._free.move_to_end(index, last=block.key is not None)

    def enter(self, block: int, parent: int | None, tokens: tuple[int, ...], salt: str) -> int:
        """Make a full block findable and return the id of the prefix it ends; `parent` None begins a chain.

        Content that another block already holds is not entered twice; the id is that block's.
        """
        key = PrefixKey((salt,) if parent is None else parent, tokens)
        known = self._known.get(key)
        if known is not None:
            return self._blocks[known].prefix
        self._prefixes += 1
        self._known[key] = block
        self._blocks[block].key, self._blocks[block].prefix = key, self._prefixes
        return self._prefixes

    def find(self, tokens: Sequence[int], salt: str, limit: int) -> tuple[list[int], list[int]]:
        """Blocks of the longest known prefix of `tokens[:limit]`, and their prefix ids. They are not held yet."""
        blocks: list[int] = []
        prefixes: list[int] = []
        parent: Hashable = (salt,)
        for end in range(self.block_size, limit + 1, self.block_size):
            index = self._known.get(PrefixKey(parent, tuple(tokens[end - self.block_size : end])))
            if index is None:
                break
            parent = self._blocks[index].prefix
            blocks.append(index)
            prefixes.append(self._blocks[index].prefix)
        return blocks, prefixes

    def _take_oldest(self) -> int:
        index, _ = self._free.popitem(last=False)
        block = self._blocks[index]
        if block.key is not None:
            del self._known[block.key]
            block.key = None
        block.holders = 1
        return index
