"""Daily schedules: which dates are due, who executes them, and what became of each.

`calendar` and `policy` are plain functions of their arguments, `store` is the ledger's two tables, `scheduler` joins
them to a place that runs jobs, `health` is what an operator and Prometheus see.
"""
