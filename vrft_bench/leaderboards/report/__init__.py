"""The report: one page that shows runs of a task, their figures, their charts and every answer."""

from vrft_bench.leaderboards.report.build import build_report as build_report
