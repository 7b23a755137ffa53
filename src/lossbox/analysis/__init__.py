"""The studies of the papers: YAML files that say what is compared and what must hold, read, checked and summarized; what they compute.

``lossbox compare STUDY`` trains, prints and draws them.
"""

from .numbers import Numbers, check_numbers
from .study import Rule, Run, Study, Variant, check, only, parse_study, read_study, shipped_studies
from .summary import (
    ap_by_frequency,
    by_rank,
    check_one_precision,
    curves,
    curves_of_runs,
    mean_and_spread,
    paired_differences,
    runs_of,
    summarize,
    with_step_numbers,
)
from .toy import TOY_DETECTORS, TOY_IOUS, toy_detector

__all__ = [
    "TOY_DETECTORS",
    "TOY_IOUS",
    "Numbers",
    "Rule",
    "Run",
    "Study",
    "Variant",
    "ap_by_frequency",
    "by_rank",
    "check",
    "check_numbers",
    "check_one_precision",
    "curves",
    "curves_of_runs",
    "mean_and_spread",
    "only",
    "paired_differences",
    "parse_study",
    "read_study",
    "runs_of",
    "shipped_studies",
    "summarize",
    "toy_detector",
    "with_step_numbers",
]
