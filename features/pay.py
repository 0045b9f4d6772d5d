"""What such work usually pays: the median of a category, in one currency, among the jobs of a release."""

from __future__ import annotations

import numpy as np

from rolecall.features.catalogue import Catalogue, Codes, Floats
from rolecall.features.request_time import log_pay

FEWEST = 5
"""Known salaries below which nothing is usual."""


def usual_pay(catalogue: Catalogue) -> Floats:
    """Logarithm of the median salary of each job's category and currency, float32[n]; NaN below FEWEST known ones.

    A posting's own salary is one of them. Content of the release alone: no candidate's behaviour moves it.
    """
    pay = log_pay(catalogue.salary)
    currency = Codes.encode(catalogue.table["currency"]).codes
    group = catalogue.category.codes.astype(np.int64) * (int(currency.max(initial=0)) + 2) + currency + 1
    group = np.where(catalogue.category.codes < 0, -1, group)
    usual = np.full(len(pay), np.nan, np.float32)
    known = np.flatnonzero(np.isfinite(pay) & (group >= 0))
    order = known[np.lexsort((pay[known], group[known]))]
    groups, starts, sizes = np.unique(group[order], return_index=True, return_counts=True)
    ends = starts + sizes
    medians = (pay[order[(starts + ends - 1) // 2]] + pay[order[(starts + ends) // 2]]) / 2
    medians = np.where(sizes >= FEWEST, medians, np.float32("nan"))
    place = np.searchsorted(groups, group)
    found = (place < len(groups)) & (group >= 0)
    found[found] = groups[place[found]] == group[found]
    usual[found] = medians[place[found]]
    return usual
