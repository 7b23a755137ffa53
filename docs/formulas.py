"""Formulas: the plain notation of the docstrings, and LaTeX between dollar signs, to MathML.

A docstring has to be readable in ``help()``, so its formulas are plain text: ``L = 1/|P| sum_i N_FP(i) / rank(i)``. This module reads that
notation and writes LaTeX. latex2mathml turns LaTeX into MathML, which browsers typeset without a script.

A code span between double backticks is a formula if all of it reads as one and it has an operator between spaces (``beta = 0``), is a
single letter (``v``) or carries an index (``p_t``). ``cutoff=math.inf``, ``logits[targets == 1]`` and ``(P, 4)`` remain code. An indented
block is a set of formulas if every line has one; two or more spaces separate the formulas and the remarks of a line.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as etree
from collections.abc import Callable
from typing import Any

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.blockprocessors import BlockProcessor
from markdown.inlinepatterns import InlineProcessor

_GREEK = "alpha beta gamma delta epsilon eta theta lambda mu nu pi rho sigma tau phi"
_UPRIGHT = "recall precision rank cov var mean std clamp sigmoid softmax sqrt atan floor ceil sum AP LRP IoU"
GREEK = frozenset(_GREEK.split())
FUNCTIONS = frozenset({"log", "exp", "max", "min"})
UPRIGHT = FUNCTIONS.union(_UPRIGHT.split())
RELATIONS = {"=": "=", "<": "<", ">": ">", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "~": r"\propto", "->": r"\to", ":": ":"}
PAIRS = {"(": ")", "[": "]", "{": "}"}
SHORT = 40  # characters of LaTeX; a longer formula in a line of text may not fit a narrow page and scrolls in its own box
PROSE = frozenset(["the", "those", "that", "which", "with", "to", "is"])
SETS = {"u": r" \cup ", "n": r" \cap "}
TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)|(?P<dots>\.\.\.|\.\.)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*(?=_[{(])|[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*)"
    r"|(?P<given>(?<=\w)\|(?=\w))|(?P<sign><=|>=|!=|->|[-+*/^_=<>~:;,()\[\]{}|\\'])"
)


class NotAFormula(ValueError):
    """What stands there is code, or words."""


class Reader:
    """Reads one formula by recursive descent: relations, sums, products, powers."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, bool, bool]] = []  # kind, text, a space before, a space or nothing behind
        position, spaced = 0, True
        while position < len(text):
            match = TOKEN.match(text, position)
            if match is None:
                raise NotAFormula(text)
            position = match.end()
            if match.lastgroup != "space":
                ends = position == len(text) or text[position].isspace()
                self.tokens.append((str(match.lastgroup), match.group(), spaced, ends))
            spaced = match.lastgroup == "space"
        self.position, self.in_bars, self.operators = 0, False, 0

    def peek(self) -> str:
        return self.tokens[self.position][1] if self.position < len(self.tokens) else ""

    def kind(self) -> str:
        return self.tokens[self.position][0] if self.position < len(self.tokens) else ""

    def spaced(self) -> bool:
        return self.position < len(self.tokens) and self.tokens[self.position][2]

    def take(self, expected: str = "") -> str:
        if not self.peek() or (expected and self.peek() != expected):
            raise NotAFormula(self.peek())
        self.position += 1
        return self.tokens[self.position - 1][1]

    def list(self, closing: str = "") -> str:
        """Relations with commas between, up to the closing sign."""
        parts = [self.relation()]
        while self.peek() in (",", ";"):
            parts.append(self.take() + r"\; ")
            parts.append(self.relation())
        if closing:
            self.take(closing)
        return "".join(parts)

    def relation(self) -> str:
        text = self.sum()
        while self.peek() in RELATIONS or self.peek() in ("in", "..", "where") or self.kind() == "given":
            _, sign, before, behind = self.tokens[self.position]
            if sign == "=" and not before and not self.tokens[self.position + 1 :][:1] == [("number", "1", False, False)]:
                raise NotAFormula("an argument by name")
            self.operators += before and behind
            self.take()
            text += {"in": r"\in ", "..": r"\ldots ", "where": r"\text{ where }", "|": r"\mid "}.get(sign) or f" {RELATIONS[sign]} "
            text += self.sum()
        return text

    def sum(self) -> str:
        text = self.take() if self.peek() in ("-", "+") else ""
        text += self.product()
        while self.peek() in ("+", "-", "\\"):
            _, sign, before, behind = self.tokens[self.position]
            if sign != "\\" and before != behind and not self.in_bars:
                raise NotAFormula("an option of a command")
            self.operators += before and behind
            self.take()
            text += r" \setminus " if sign == "\\" else f" {sign} "
            text += self.product()
        return text

    def product(self) -> str:
        parts = [self.power()]  # factors at even places, what joins them at odd ones
        while self.peek():
            if self.peek() == "/":
                self.operators += 1
                self.check_a_division()
                self.take()
                parts[-1] = rf"\frac{{{_without_parentheses(parts[-1])}}}{{{self.power(bare=True)}}}"
            elif self.peek() == "*":
                self.operators += 1
                self.take()
                parts += [r" \cdot ", self.power()]
            elif self.peek() in SETS and self.joins_sets():
                self.operators += 1
                parts += [SETS[self.take()], self.power()]
            elif self.peek() == "-" and parts[-1].startswith(r"\sum") and not self.tokens[self.position][3]:
                parts += [r"\,", self.take() + self.power()]
            elif self.starts_a_factor():
                words = self.is_a_word() or re.search(r"\\(text|mathtt)\{[^{}]*\}$", parts[-1])
                parts += [r"\ " if words else r"\,", self.power()]
            else:
                break
        return "".join(parts)

    def check_a_division(self) -> None:
        """A slash without spaces behind a word is a path; a sum below one without parentheses ends nowhere."""
        (_, left, _, _), (_, _, spaced, _) = self.tokens[self.position - 1 : self.position + 1]
        following = self.tokens[self.position + 1][1] if self.position + 1 < len(self.tokens) else ""
        if (not spaced and len(left.partition("_")[0]) > 2 and left[0].isalpha() and left not in GREEK) or following.startswith("sum"):
            raise NotAFormula(following)

    def joins_sets(self) -> bool:
        """Whether a u or n stands between two sets, which have capital letters."""
        around = self.tokens[self.position - 1][1], self.tokens[self.position + 1][1] if self.position + 1 < len(self.tokens) else ""
        return all(name[:1].isupper() for name in around)

    def is_a_word(self) -> bool:
        base = self.peek().partition("_")[0]
        return self.kind() == "name" and len(base) > 2 and base not in GREEK | FUNCTIONS | {"sum"}

    def starts_a_factor(self) -> bool:
        sign = self.peek()
        if self.kind() == "dots":
            return sign == "..."
        if self.kind() == "given" or sign in ("in", "where"):
            return False
        return self.kind() in ("number", "name") or sign in ("(", "{") or (sign == "|" and not self.in_bars)

    def power(self, bare: bool = False) -> str:
        text = self.primary()
        if self.peek() == "^":
            self.take()
            exponent = self.take() if self.peek() in ("-", "+") else ""
            self.operators += 1
            return f"{text}^{{{exponent}{_without_parentheses(self.primary())}}}"
        return _without_parentheses(text) if bare else text

    def primary(self) -> str:
        kind, sign = self.kind(), self.take()
        if kind == "number":
            if self.peek() == "[" and sign == "1":
                self.take()
                return rf"\mathbf{{1}}\!\left[{self.list(']')}\right]"
            return re.sub(r"^1e(.+)", r"10^{\1}", sign)
        if sign == "...":
            return r"\dots "
        if kind == "name":
            return self.name(sign)
        if sign in PAIRS:
            outside, self.in_bars = self.in_bars, False
            inner = self.list(PAIRS[sign])
            self.in_bars = outside
            brace = "\\" if sign == "{" else ""
            return rf"\left{brace}{sign}{inner}\right{brace}{PAIRS[sign]}"
        if sign == "|":
            outside, self.in_bars = self.in_bars, True
            inner = self.sum()
            self.take("|")
            self.in_bars = outside
            return rf"\left|{inner}\right|"
        raise NotAFormula(sign)

    def name(self, word: str) -> str:
        base, _, index = word.partition("_")
        if len(word.rpartition("_")[2]) == 1 and len(base) > 1:
            base, _, index = word.rpartition("_")
        if base == "sum" and (index or self.peek() == "_"):
            return self.big_sum(index)
        if base in ("dL", "ds") and len(word) <= 4:
            index = rf"_{{{index}}}" if index else ""
            return rf"\partial {base[1]}{index}"
        indexed = len(base) == 1 or len(index) == 1 or base in GREEK | UPRIGHT or base == "dx"
        text = _symbol(base if indexed else word)
        marks = ""
        while self.peek() and not self.spaced() and (self.peek() == "'" or (self.peek() in "*+-" and self.is_a_mark())):
            marks += {"'": r"\prime ", "*": r"\ast "}.get(self.peek(), self.peek())
            self.take()
        subscript = _index(index) if indexed and index else ""
        if self.peek() == "_":
            self.take()
            if self.peek() in ("{", "("):
                subscript = self.list({"{": "}", "(": ")"}[self.take()])
            else:
                subscript = _index(self.take())
        text += (f"_{{{subscript}}}" if subscript else "") + (f"^{{{marks}}}" if marks else "")
        return self.call(base, text)

    def is_a_mark(self) -> bool:
        """Whether the sign behind a name belongs to it: l*, rank+(i), P- and p*_i, but not a + b."""
        following = self.tokens[self.position + 1][1] if self.position + 1 < len(self.tokens) else ""
        return self.tokens[self.position][3] or following in ("(", ")", ",", "_")

    def call(self, base: str, text: str) -> str:
        if self.peek() != "(" or self.spaced():
            return text
        self.take()
        outside, self.in_bars = self.in_bars, False
        inner = self.list(")")
        self.in_bars = outside
        self.operators += base in FUNCTIONS or base == "sqrt"
        if base == "sqrt":
            return rf"\sqrt{{{inner}}}"
        if base in ("floor", "ceil"):
            return rf"\left\l{base} {inner}\right\r{base}"
        return rf"{text}\!\left({inner}\right)" if r"\frac" in inner or r"\sum" in inner else f"{text}({inner})"

    def big_sum(self, index: str) -> str:
        self.operators += 1
        if index:
            return rf"\sum_{{{_index(index)}}} "
        self.take("_")
        closing = {"{": "}", "(": ")"}.get(self.take())
        if closing is None:
            raise NotAFormula("sum")
        low, dots, high = self.list(closing).partition(r"\ldots ")
        return rf"\sum_{{{low}}}^{{{high}}} " if dots else rf"\sum_{{{low}}} "


def _symbol(base: str) -> str:
    if len(base) == 1:
        return base
    if re.fullmatch(r"[a-z]\d|log2", base):
        return r"\log_{2}" if base == "log2" else f"{base[0]}_{{{base[1]}}}"
    if "_" in base:
        return r"\mathtt{" + base.replace("_", r"\_") + "}"
    if base in GREEK or base in FUNCTIONS:
        return rf"\{base} "
    return r"\Delta x" if base == "dx" else rf"\text{{{base}}}"


def _index(word: str) -> str:
    return word if len(word) == 1 or (len(word) == 2 and word.islower()) else rf"\text{{{word.replace('_', ' ')}}}"


def _without_parentheses(text: str) -> str:
    """Of a numerator, divisor or exponent: its own parentheses say nothing."""
    if not (text.startswith(r"\left(") and text.endswith(r"\right)")):
        return text
    depth = 0
    for match in re.finditer(r"\\(left|right)(?![a-z])", text):
        depth += 1 if match.group(1) == "left" else -1
        if depth == 0 and match.end() < len(text) - 1:
            return text
    return text[len(r"\left(") : -len(r"\right)")]


def to_latex(text: str) -> tuple[str, int]:
    """A formula in plain notation as LaTeX, and its number of operators. Raises NotAFormula."""
    if not PROSE.isdisjoint(text.split()) and len(text.split()) > 3:
        raise NotAFormula(text)
    reader = Reader(text)
    latex = reader.list()
    if reader.peek():
        raise NotAFormula(text)
    return latex, reader.operators


def to_mathml(latex: str, *, block: bool = False) -> etree.Element:
    """LaTeX as MathML; the LaTeX stays with it, for those who copy it."""
    element = etree.fromstring(convert(latex, display="block" if block else "inline").replace("&nbsp;", "\u00a0"))
    for part in element.iter():
        part.tag = part.tag.rpartition("}")[2]
        previous = None
        for child in part:
            sign = child.tag.endswith("mo") and child.text in ("−", "-", "&#x2212;")
            if sign and (
                previous is None
                or previous.tag.endswith("mspace")
                or (previous.tag.endswith("mo") and previous.text not in (")", "]", "|"))
            ):
                child.set("form", "prefix")
            elif child.tag.endswith("mo") and child.text == "|":
                child.set("lspace", "0")
                child.set("rspace", "0")
            previous = child
    element.attrib.pop("xmlns", None)
    if r"\frac" in latex or r"\sum" in latex:
        element.set("displaystyle", "true")  # in a line of text too: fractions that can be read
    element.set("alttext", latex)
    return element


def span_to_latex(text: str) -> str | None:
    """The content of a code span as LaTeX, or None where it is code or words."""
    plain = text.strip()
    if re.fullmatch(r"[A-Za-z][*']?", plain) or re.fullmatch(r"[A-Za-z][+-]", plain):
        return to_latex(plain)[0]
    try:
        latex, operators = to_latex(plain)
    except NotAFormula:
        return None
    indexed = re.fullmatch(r"(?:[A-Za-z]|" + "|".join(GREEK) + r")(?:_\w|\*|\^\w+)", plain)
    return latex if operators or indexed else None


def line_to_cells(line: str) -> list[tuple[bool, str]] | None:
    """A line of an indented block: (is a formula, LaTeX or words), or None if the line has no formula."""
    cells: list[tuple[bool, str]] = []
    for cell in re.split(r"\s{2,}", line.strip()):
        latex = span_to_latex(cell)
        if latex is None and (re.search(r"[\"'{}\[\]@]|(?<![<>!])=", cell) or cell.endswith(":")):
            return None
        cells.append((latex is not None, latex or cell))
    return cells if any(formula for formula, _ in cells) else None


class Span(InlineProcessor):
    """``formula`` in a docstring, $LaTeX$ in a page."""

    def __init__(self, pattern: str, md: Markdown, reader: Callable[[str], str | None]) -> None:
        super().__init__(pattern, md)
        self.reader = reader

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[etree.Element | None, int | None, int | None]:  # type: ignore[override]
        latex = self.reader(m.group(1))
        if latex is None:
            return None, None, None
        box = etree.Element("span", {"class": "formula-inline", "tabindex": "0"} if len(latex) > SHORT else {})
        box.append(to_mathml(latex))
        return box, m.start(0), m.end(0)


class Block(BlockProcessor):
    """An indented block of formulas; $$LaTeX$$ that stands alone."""

    def test(self, parent: etree.Element, block: str) -> bool:
        return block.startswith(("    ", "$$"))

    def run(self, parent: etree.Element, blocks: list[str]) -> bool | None:
        block = blocks[0]
        if block.startswith("$$"):
            if not block.rstrip().endswith("$$"):
                return False
            rows: list[list[tuple[bool, str]] | None] = [[(True, block.strip().strip("$").strip())]]
        else:
            lines = [re.sub(r"(?<=\S)\s{2,}(?==\s)", " ", line) for line in block.splitlines() if line.strip()]
            rows = [line_to_cells(line) if line.startswith("    ") else None for line in lines]
        if not rows or None in rows:
            return False
        blocks.pop(0)
        box = etree.SubElement(parent, "div", {"class": "formula", "tabindex": "0"})
        for row in rows:
            line = etree.SubElement(box, "div")
            for formula, text in row or ():
                if formula:
                    line.append(to_mathml(text, block=True))
                else:
                    etree.SubElement(line, "span").text = text
        return True


class Formulas(Extension):
    """The extension for mkdocs.yml and for mkdocstrings, which renders docstrings with the same extensions."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.parser.blockprocessors.register(Block(md.parser), "formulas", 85)  # before code blocks (80)
        md.inlinePatterns.register(Span(r"(?<!`)``(?!`)((?:[^`])+?)``(?!`)", md, span_to_latex), "formula", 195)  # before code spans (190)
        md.inlinePatterns.register(Span(r"(?<![\\$\w])\$(?![\s$])([^$\n]+?)(?<![\s\\])\$(?![\w$])", md, str), "latex", 185)


def makeExtension(**options: Any) -> Formulas:
    return Formulas(**options)
