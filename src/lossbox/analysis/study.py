"""A study: variants that are trained or computed, what is measured of them, and what must hold. A study is a YAML or JSON file, not code.

::

    title: Does a greater weight of the boxes help?
    source: where the question comes from
    recipe: digits_retinanet_alrp                 # of all variants that name no other
    options: {trainer.max_epochs: 4}              # of all variants
    variants:                                     # each differs in some options of its recipe
      weight 1: {model.objective.init_args.localization_weight: 1}
      weight 5: {model.objective.init_args.localization_weight: 5}
    measure: [AP, oLRP, weight_localization_last]
    must_hold:
      - every step: abs(negative_gradient - positive_gradient) <= 1e-5 * positive_gradient
      - run: 0 <= AP <= 1
    plot: {x: step, y: [classification, localization]}

A variant with ``call`` in the place of ``recipe`` is a function of Python, called with the other options: it returns numbers by name, and
under ``rows`` what is a list. A rule is a comparison of numbers of a run (``run``) or of one step (``every step``, ``some step``), of the
variants that ``of`` names (``aLRP*`` names several), else of all; ``equal`` lists numbers by variant, ``within`` how far off they may be.
Numbers are those of ``lossbox.metrics.evaluate``; ``AP_rare``, ``AP_middle``, ``AP_frequent``, of thirds of the classes by their training
boxes; ``NAME_min``, ``_max``, ``_mean``, ``_median`` and ``_last`` of a column of the steps. ``plot`` draws columns, or comparisons and
quotients of them; with ``of: runs`` numbers of the runs, a line for all variants whose names are the same up to the last comma.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..messages import near_name
from .claims import compiled, evaluate, names_in

STUDIES = Path(__file__).parent / "studies"
WHERE = ("run", "every step", "some step", "equal")

KEYS = frozenset({"title", "variants", "measure", "must_hold"})
"""Of a study, and not of a recipe."""


@dataclass(frozen=True)
class Variant:
    """One of the things that are compared.

    Attributes:
        name: in tables.
        recipe: by name or path, or None for one that is not trained.
        call: the dotted name of a function, or None.
        options: of the recipe, their levels joined by dots; or the arguments of the function.
    """

    name: str
    recipe: str | None
    call: str | None
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """What must hold.

    Attributes:
        where: one of ``WHERE``.
        claim: the comparison as text; for ``equal`` the numbers by variant.
        of: the variants it is about.
        within: for ``equal``, how far off a number may be.
    """

    where: str
    claim: Any
    of: tuple[str, ...]
    within: float = 0.0

    @property
    def text(self) -> str:
        return f"{self.where}: {self.claim}" if self.where != "equal" else f"numbers as given, within {self.within:g}"


@dataclass(frozen=True)
class Study:
    """What a YAML file says; see the module.

    Attributes:
        name: of the file.
        title: a line.
        source: where it comes from.
        paper: what the paper saw.
        variants: what is compared; the first is what the others are compared with, unless ``baseline`` names another.
        measure: the numbers of the table.
        must_hold: rules.
        plot: ``x``, a column of the steps or rows of a run, and ``y``, a list of them; ``log``, those of ``y`` on a logarithmic axis;
            ``of``, ``runs`` for numbers of the runs; None draws nothing.
        baseline: the name of a variant.
        seeds: what is trained where nobody says other seeds.
        file: what it was read from, for messages; None for those that ship.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    measure: tuple[str, ...]
    source: str = ""
    paper: str = ""
    must_hold: tuple[Rule, ...] = ()
    plot: Mapping[str, Any] | None = None
    baseline: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    file: Path | None = None

    @property
    def names_used(self) -> set[str]:
        """The numbers of a run that the table or a rule needs."""
        used = set(self.measure)
        for rule in self.must_hold:
            used |= names_in(rule.claim) if rule.where != "equal" else {name for row in rule.claim.values() for name in row}
        return used


@dataclass(frozen=True)
class Run:
    """What came out of one variant and one seed.

    Attributes:
        variant: its name.
        seed: of the training; None where nothing is drawn at random.
        numbers: by name.
        rows: of the steps, or what else the variant returns a list of.
    """

    variant: str
    seed: int | None
    numbers: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]


def only(study: Study, patterns: Sequence[str]) -> Study:
    """The study of some of its variants, with the rules about them.

    Args:
        study: the whole.
        patterns: names of variants; ``aLRP*`` names several.

    Raises:
        ValueError: a pattern that names none.
    """
    names = [variant.name for variant in study.variants]
    kept = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    _check_names("only", [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)], names)
    rules = [replace(rule, of=tuple(name for name in rule.of if name in kept)) for rule in study.must_hold]
    return replace(
        study,
        variants=tuple(variant for variant in study.variants if variant.name in kept),
        must_hold=tuple(rule for rule in rules if rule.of),
        baseline=study.baseline if study.baseline in kept else kept[0],
    )


def shipped_studies() -> dict[str, Path]:
    """The studies of the package by name.

    Example:
        >>> "toy" in shipped_studies()
        True
    """
    return {path.stem: path for path in sorted(STUDIES.glob("*.yaml"))}


def holds_a_study(path: Path) -> bool:
    """Whether a file is meant as a study, by its keys, or where it cannot be parsed by a line that begins with ``variants``."""
    if not path.is_file():
        return False
    text = path.read_text(errors="replace")
    try:
        content = _parsed(text)
    except ValueError:
        return re.search(r'^variants:|"variants"\s*:', text, re.MULTILINE) is not None
    return isinstance(content, dict) and not KEYS.isdisjoint(content)


def _parsed(text: str) -> Any:
    """What YAML or JSON says. YAML alone would stop at a tab, and read the number 1e-5 as a text.

    Raises:
        ValueError: it is neither.
    """
    try:
        return json.loads(text)
    except ValueError:
        import yaml
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def read_study(path: Path) -> Study:
    """The study in a YAML or JSON file.

    Raises:
        ValueError: the file is no study; names the file, the key and the rule.
    """
    try:
        content = _parsed(path.read_text())
    except ValueError as error:
        raise ValueError(f"study: {path} is neither YAML nor JSON: {error}") from error
    try:
        return parse_study(path.stem, content)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"study: {path}: {error}") from error


def parse_study(name: str, content: Any) -> Study:
    """A study from what a YAML file holds.

    Raises:
        ValueError: a key that does not exist or is missing, a rule that is no comparison, a variant that is not there.

    Example:
        >>> study = parse_study("mine", {"title": "A", "variants": {"a": {"recipe": "r"}}, "measure": ["AP"]})
        >>> study.variants
        (Variant(name='a', recipe='r', call=None, options={}),)
    """
    known = {field.name for field in fields(Study)} - {"name", "file"} | {"recipe", "call", "options"}
    if not isinstance(content, dict):
        raise ValueError("title, variants and measure expected")
    if unknown := sorted(content.keys() - known):
        there = f"a study has {', '.join(sorted(known))}"
        raise ValueError(f"no key {unknown[0]}{near_name(str(unknown[0]), known, otherwise=there)}")
    if missing := [key for key in ("title", "variants", "measure") if key not in content]:
        raise ValueError(f"title, variants and measure expected, got no {missing[0]}")
    variants = tuple(_variant(name, said or {}, content) for name, said in content["variants"].items())
    if not variants:
        raise ValueError("variants: at least one expected")
    names = tuple(variant.name for variant in variants)
    baseline = content.get("baseline", names[0])
    _check_names("baseline", [baseline], names)
    return Study(
        name=name,
        title=content["title"],
        variants=variants,
        measure=tuple(content["measure"]),
        source=content.get("source", ""),
        paper=" ".join(content.get("paper", "").split()),
        must_hold=tuple(_rule(rule, names) for rule in content.get("must_hold", ())),
        plot=_plot(content.get("plot")),
        baseline=baseline,
        seeds=tuple(content.get("seeds", (0, 1, 2))),
    )


def _variant(name: str, said: Mapping[str, Any], study: Mapping[str, Any]) -> Variant:
    both = {key: said[key] if key in said else study.get(key) for key in ("recipe", "call")}
    if "recipe" in said or "call" in said:
        both = {key: said.get(key) for key in both}
    if (both["recipe"] is None) == (both["call"] is None):
        raise ValueError(f"variants: {name}: a recipe or a call expected")
    options = dict(study.get("options") or {}) | {key: value for key, value in said.items() if key not in both}
    return Variant(str(name), both["recipe"], both["call"], options)


def _rule(said: Mapping[str, Any], variants: Sequence[str]) -> Rule:
    where = [key for key in WHERE if key in said]
    if len(where) != 1 or not said.keys() <= {*where, "of", "within"}:
        raise ValueError(f"must_hold: one of {', '.join(WHERE)} expected, and perhaps of and within, got {', '.join(map(str, said))}")
    claim = said[where[0]]
    if where[0] == "equal":
        of = list(claim)
    else:
        patterns = [said["of"]] if isinstance(said.get("of"), str) else said.get("of", ["*"])
        of = [name for name in variants if any(fnmatchcase(name, pattern) for pattern in patterns)]
        _check_names("must_hold", [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in variants)], variants)
        try:
            compiled(claim)
        except ValueError as error:
            raise ValueError(f"must_hold: {error}") from None
    _check_names("must_hold", of, variants)
    return Rule(where[0], claim, tuple(of), float(said.get("within", 0)))


def _plot(said: Any) -> Mapping[str, Any] | None:
    if said is None:
        return None
    if not isinstance(said, dict) or not {"x", "y"} <= said.keys() <= {"x", "y", "log", "of"} or said.get("of", "runs") != "runs":
        raise ValueError(f"plot: x and y expected, and perhaps log and of: runs, got {said}")
    for key in ("y", "log"):
        names = said.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"plot: {key}: a list of names expected, got {names!r}")
    if strange := [name for name in said.get("log", []) if name not in said["y"]]:
        raise ValueError(f"plot: log: a name that y has expected, got {strange[0]}{near_name(strange[0], said['y'])}")
    return said


def _check_names(key: str, names: Sequence[str], variants: Sequence[str]) -> None:
    for name in names:
        if name not in variants:
            raise ValueError(f"{key}: no variant {name}; there are {', '.join(variants)}")


def check(study: Study, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each rule, over the runs it is about.

    Returns:
        For each rule ``rule`` (its text), ``of``, ``checked`` (runs, or steps, or numbers) and ``violations``: a list of dicts with
        ``variant``, ``seed``, ``step`` where it is about steps, and ``found``, the numbers. A rule that found nothing to check is violated.

    Raises:
        ValueError: a rule is about a number that a run does not have.
    """
    checks = []
    for rule in study.must_hold:
        checked, violations = 0, []
        for run in (run for run in runs if run.variant in rule.of):
            count, found = _check_run(rule, run)
            checked += count
            violations += [{"variant": run.variant, "seed": run.seed, **violation} for violation in found]
            if not count:
                violations.append({"variant": run.variant, "seed": run.seed, "found": "nothing to check"})
        checks.append({"rule": rule.text, "of": list(rule.of), "checked": checked, "violations": violations})
    return checks


def _check_run(rule: Rule, run: Run) -> tuple[int, list[dict[str, Any]]]:
    if rule.where == "equal":
        pairs = list(_pairs(rule.claim[run.variant], run.numbers))
        return len(pairs), [{"found": f"{name} = {found}, not {given}"} for name, given, found in pairs if not _near(found, given, rule)]
    names = names_in(rule.claim)
    records = [run.numbers] if rule.where == "run" else run.rows
    failed = [record for record in records if not _holds(rule, record, names)]
    if rule.where == "some step" and len(failed) < len(records):
        failed = []
    return len(records), [
        ({"step": record.get("step")} if rule.where != "run" else {}) | {"found": {name: record[name] for name in sorted(names)}}
        for record in failed
    ]


def _holds(rule: Rule, record: Mapping[str, Any], names: set[str]) -> bool:
    if missing := sorted(name for name in names if name not in record):
        numbers = [name for name, value in record.items() if isinstance(value, int | float)]
        near = near_name(missing[0], numbers, otherwise=f"there are {', '.join(numbers)}")
        raise ValueError(f"must_hold: {rule.claim!r}: no number {missing[0]}{near}")
    return bool(evaluate(rule.claim, record))


def _near(found: Any, given: float, rule: Rule) -> bool:
    return isinstance(found, int | float) and abs(found - given) <= rule.within + 1e-9


def _pairs(given: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[tuple[str, float, Any]]:
    for name, value in given.items():
        if isinstance(value, list):
            there = found.get(name)
            for place, one in enumerate(value):
                yield f"{name}[{place}]", one, there[place] if isinstance(there, list) and place < len(there) else None
        else:
            yield name, value, found.get(name)
