"""The checks of `nodewright doctor`: one small function each, in the table `CHECKS`."""

from nodewright.cli.doctoring.checks import CHECKS
from nodewright.cli.doctoring.model import Check, Finding, Outcome, Report, Result, run_checks

__all__ = ["CHECKS", "Check", "Finding", "Outcome", "Report", "Result", "run_checks"]
