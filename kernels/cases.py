"""Every operator at the shapes it is measured on, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rolecall.kernels import case_heads, case_mixture, case_products, case_rows
from rolecall.kernels.case import Case, Scale

_MAKERS: dict[str, Callable[[str, Scale, torch.device], list[Case]]] = {
    **dict.fromkeys(case_rows.RUNS, case_rows.cases),
    **dict.fromkeys(case_heads.OPS, case_heads.cases),
    **dict.fromkeys(case_products.OPS, case_products.cases),
    "mol": case_mixture.cases,
}
OPERATORS = tuple(_MAKERS)


def cases(op: str, scale: Scale, device: torch.device) -> list[Case]:
    """The cases of an operator. Raises ValueError for a name not in `OPERATORS`."""
    if op not in _MAKERS:
        raise ValueError(f"got operator {op!r}; allowed: {', '.join(OPERATORS)}")
    return _MAKERS[op](op, scale, device)
