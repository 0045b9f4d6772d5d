"""The report of a release: one self-contained HTML page that says what the gate said, why, and what is bad about it.

write_report(file, manifest=..., evaluation=..., champion=..., verdict=..., titles=...)     # write.py: in a run
file.write_text(render(report_of_run(folder)), "utf-8")                      # page.py, recorded.py: of a finished one
"""
