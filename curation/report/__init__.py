"""The report of a dataset: `DATASET/report/index.html`, a page that opens from disk and needs no network."""

from curation.report.build import build_report, write_report

__all__ = ["build_report", "write_report"]
