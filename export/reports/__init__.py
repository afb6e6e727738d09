"""Writes reports of an export from measured figures, denied variants included; all formats share one list of sections.

export_report.py       the whole report, as data
report_inputs.py       collects what earlier steps wrote; compression_report.py reads what compression did
sections/              what the report says, as blocks
first_answers.py       the page of `init --show`: pictures with answers, before any export
report_files.py        writes them as JSON and Markdown; html_report.py as one page, by report.html.j2
plots/                 draws
pareto.py              the variants that no other one beats
"""
