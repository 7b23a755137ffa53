"""The numbers that a study names, compared with those that its runs have, or will have."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ..messages import near_name
from .claims import names_in
from .study import Rule, Run, Study


class Numbers(NamedTuple):
    """Names that a run has.

    Attributes:
        of_run: of its numbers, those made of the steps too (``NAME_last``).
        of_steps: of the columns of its steps.
    """

    of_run: Collection[str]
    of_steps: Collection[str]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Numbers:
        """Those that some run has."""
        return cls({name for run in runs for name in run.numbers}, {name for run in runs for row in run.rows for name in row})


def check_numbers(study: Study, known: Mapping[str, Numbers]) -> None:
    """Raises ValueError where ``measure``, ``must_hold`` or ``plot`` names what no run has; names the near one.

    Args:
        study: what names them.
        known: by variant. One that is missing is not known yet: rules about it, and ``measure`` and ``plot`` of the study, are left alone.

    Example:
        >>> from lossbox.analysis import parse_study
        >>> study = parse_study("mine", {"title": "A", "recipe": "r", "variants": {"a": {}}, "measure": ["AP57"]})
        >>> check_numbers(study, {"a": Numbers(["AP", "AP50"], [])})
        Traceback (most recent call last):
            ...
        ValueError: measure: no run has a number AP57; did you mean AP50?
    """
    for rule in study.must_hold:
        for variant in known.keys() & set(rule.of):
            for name in sorted(_named(rule, variant)):
                there = known[variant].of_steps if rule.where.endswith("step") else known[variant].of_run
                _check(f"must_hold: {rule.text!r}: no run of {variant}", name, there)
    if any(variant.name not in known for variant in study.variants):
        return
    everywhere = Numbers(*({name for numbers in known.values() for name in numbers[place]} for place in (0, 1)))
    for name in study.measure:
        _check("measure: no run", name, everywhere.of_run)
    if study.plot is not None:
        there = everywhere.of_run if study.plot.get("of") == "runs" else everywhere.of_steps
        _check("plot: no run", study.plot["x"], there)
        for drawn in study.plot["y"]:
            for name in _drawn(drawn, there):
                _check("plot: no run", name, there)


def _named(rule: Rule, variant: str) -> Collection[str]:
    named: Collection[str] = rule.claim[variant] if rule.where == "equal" else names_in(rule.claim)
    return named


def _drawn(text: str, there: Collection[str]) -> Collection[str]:
    """The names in a quotient or comparison; the text itself where it is a name, some of which are none of Python's (``value_at_0.4``)."""
    if text in there:
        return [text]
    try:
        return sorted(names_in(text))
    except ValueError:
        return [text]


def _check(who: str, name: str, there: Collection[str]) -> None:
    if name not in there:
        near = near_name(name, there, otherwise=f"there are {', '.join(sorted(there))}")
        raise ValueError(f"{who} has a number {name}{near}")
