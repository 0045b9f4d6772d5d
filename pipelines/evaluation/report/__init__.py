"""The report of a release: one self-contained HTML page that says what the gate said, why, and what is bad about it.

write_report(file, manifest=..., evaluation=..., champion=..., verdict=..., titles=...)     # in a run
file.write_text(render(report_of_run(folder)), "utf-8")                                     # from a finished one
"""

from rolecall.pipelines.evaluation.report.page import render
from rolecall.pipelines.evaluation.report.recorded import recorded_report, report_of_run
from rolecall.pipelines.evaluation.report.write import REPORT, gather_report, write_report

__all__ = ["REPORT", "gather_report", "recorded_report", "render", "report_of_run", "write_report"]
