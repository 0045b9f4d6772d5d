"""The table of launch configurations: looked up by device, and honest about what was measured."""

from __future__ import annotations

import torch

from rolecall.kernels import configurations
from rolecall.kernels.configurations import TABLE, Configuration, Table, blocks, configuration

DEFAULT = Configuration(blocks=blocks(BLOCK=64))


def test_a_device_has_its_own_entry_then_its_familys_then_the_default() -> None:
    own, family = Configuration(warps=1), Configuration(warps=2)
    table = Table({("op", "a", "h200"): own, ("op", "a", "hopper"): family, ("op", "b", "hopper"): family})
    assert table.entry("op", "a", "h200", DEFAULT) is own
    assert table.entry("op", "a", "h100", DEFAULT) is family
    assert table.entry("op", "b", "h200", DEFAULT) is family
    assert table.entry("op", "b", "a100", DEFAULT) is DEFAULT
    assert table.entry("op", "c", "h100", DEFAULT) is DEFAULT


def test_a_cpu_has_no_entries() -> None:
    assert all(device in ("hopper", *configurations.HOPPER) for _, _, device in TABLE.entries)
    assert configuration("rms_norm", "4096", torch.ones(1), DEFAULT) is DEFAULT


def test_no_entry_claims_to_have_been_measured() -> None:
    """Until a benchmark on that device has chosen it, which writes `tuned=True` into its proposal."""
    assert TABLE.entries
    assert not any(entry.tuned for entry in TABLE.entries.values())


def test_entries_hold_whole_rows_in_powers_of_two() -> None:
    for (op, shape, _), entry in TABLE.entries.items():
        assert all(size & (size - 1) == 0 for size in entry.blocks.values())
        assert entry.warps in (1, 2, 4, 8, 16, 32)
        if op.endswith("_norm"):
            assert entry.blocks["BLOCK"] >= int(shape)
