r"""Numbers and sentences in prose, taken from records while the book is built.

    {value}`10_training:phantom.softmax.balanced_accuracy|.1%|±`     this book's device
    {value}`study-2022/11_cost:cost.softmax.macs_fvcore|.2f G`       another device
    {value}`edition/10_real:brain-tumor-mri.softmax.balanced_accuracy|.1%`   the device of the committed edition
    {sentence}`14_results:verdict.linformer`                         a computed text
    {defined}`95 %`                                                  a number that is a definition, not a measurement

and a directive, a table of the models at full size beside the small ones: `{fullsize} paper-mri` in a fence.

What lives here, top to bottom: the three roles; the directive; what stands in a role (`parse`); how a record becomes
words (`say`).
Options follow the name, each after a `|`, in any order: a format (`.1%`, `.3f`, `.2f M` with an SI prefix), `±` (the
95 % interval), `n` (the count in place of the value), `bare` (no unit), `seed=0`. A missing record fails the build.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from .. import results
from ..records import Record

LOG = logging.getLogger(__name__)
PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "m": 1e-3, "µ": 1e-6}
COUNTED = {"MAC": "MAC", "FLOP": "FLOP", "byte": "B", "FLOP/s": "FLOP/s", "byte/s": "B/s", "parameters": "parameters"}
FORMAT = re.compile(r"(?P<spec>,?\.?\d*[fgde%])(?: (?P<prefix>[kMGTmµ]))?")


# --------------------------------------------------------------------------------------------- roles
class _FromRecord(SphinxRole):
    """Looks a record up; what to say of it is the subclass's."""

    def run(self):
        try:
            asked = parse(self.text)
            text = self.words(asked, self.find(asked))
        except (LookupError, ValueError) as error:
            LOG.warning(f"{self.name} {self.text!r}: {error}", location=self.get_location(), type="medbench")
            return [nodes.strong(self.rawtext, f"[{self.text}: no such record]")], []
        return [nodes.inline(self.rawtext, text, classes=["from-record"])], []

    def find(self, asked: Asked) -> Record:
        """The record, from the result files of the assembled tree; the page then depends on that file."""
        root = Path(self.env.srcdir) / "book" / "results"
        device = {None: "HERE", "edition": "EDITION"}.get(asked.device)
        device = (root / device).read_text().strip() if device else asked.device
        path = root / device / f"{asked.chapter}.json"
        self.env.note_dependency(str(path))
        if not path.exists():
            have = sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.glob("*/*.json"))
            near = [h for h in have if h.startswith(f"{device}/")] or have
            raise LookupError(f"no result file {device}/{asked.chapter}; there is {', '.join(near) or 'none at all'}")
        return results.find(asked.name, device, asked.chapter, asked.seed, roots=(root,))


class ValueRole(_FromRecord):
    """`{value}`: a record's value with its unit."""

    def words(self, asked: Asked, record: Record) -> str:
        """What to print."""
        return say(record, asked)


class SentenceRole(_FromRecord):
    """`{sentence}`: a record's computed text."""

    def words(self, asked: Asked, record: Record) -> str:
        """What to print."""
        if not record.text:
            raise LookupError(f"{record.name} has no text; use {{value}} for its value")
        return record.text


class DefinedRole(SphinxRole):
    """`{defined}`: a number that is true by definition; it says to the lint that nobody measured it."""

    def run(self):
        """The text as it is."""
        return [nodes.inline(self.rawtext, self.text)], []


class FullSize(SphinxDirective):
    """`{fullsize}`: the table of a campaign, from the records of all machines."""

    required_arguments = 1

    def run(self):
        """The table and what is said of it. The page is read anew each time, for there may be new records."""
        from . import fullsize
        self.env.note_reread()
        campaign = fullsize.LARGE[self.arguments[0]]
        lines = fullsize.beside(results.load(Path(self.env.srcdir) / "book" / "results"), campaign,
                                fullsize.BESIDE[campaign.name])
        holder = nodes.container()
        self.state.nested_parse(StringList(fullsize.markdown(lines, campaign)), self.content_offset, holder)
        return holder.children


def setup(app):
    """Register the roles and the directive with Sphinx."""
    app.add_directive("fullsize", FullSize)
    for name, role in (("value", ValueRole()), ("sentence", SentenceRole()), ("defined", DefinedRole())):
        app.add_role(name, role)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# --------------------------------------------------------------------------------------------- what was asked
@dataclass(frozen=True)
class Asked:
    """A role's content, taken apart."""

    name: str
    chapter: str
    device: str | None = None
    spec: str | None = None
    prefix: str | None = None
    interval: bool = False
    count: bool = False
    bare: bool = False
    seed: int | None = None


def parse(text: str) -> Asked:
    """`device/chapter:name|option|option` taken apart.

    Raises:
        ValueError: no chapter, or an option that is none.
    """
    place, *options = (part.strip() for part in text.split("|"))
    chapter, colon, name = place.partition(":")
    if not colon or not name:
        raise ValueError("wanted chapter:name, such as 10_training:phantom.softmax.balanced_accuracy")
    device, slash, last = chapter.partition("/")
    found = {"name": name, "chapter": last if slash else chapter, "device": device if slash else None}
    for option in options:
        if match := FORMAT.fullmatch(option):
            found |= {"spec": match["spec"], "prefix": match["prefix"]}
        elif option in ("±", "n", "bare"):
            found[{"±": "interval", "n": "count", "bare": "bare"}[option]] = True
        elif re.fullmatch(r"seed=\d+", option):
            found["seed"] = int(option.removeprefix("seed="))
        else:
            raise ValueError(f"option is {option!r}; allowed: a format such as .1% or '.2f M', ±, n, bare, seed=0")
    return Asked(**found)


# --------------------------------------------------------------------------------------------- words
def say(record: Record, asked: Asked) -> str:
    """A record's value in words: number, unit, and the interval if asked for.

    A null is never a number: it is said with its reason.
    """
    if asked.count:
        if record.n is None:
            raise LookupError(f"{record.name} has no count")
        return f"{record.n:,}".replace(",", "\u202f")
    if record.value is None:
        return f"not measured ({record.reason})"
    spec, prefix = asked.spec, asked.prefix
    if prefix is None and spec is None and record.unit in COUNTED:
        prefix = next((p for p in "TGMk" if abs(record.value) >= PREFIXES[p]), "")
    scale = PREFIXES[prefix or ""]

    def number(value: float) -> str:
        return _number(value / scale, spec, whole=isinstance(record.value, int) and scale == 1.0)
    unit = "" if asked.bare else _unit(record.unit, prefix or "", percent=bool(spec) and spec.endswith("%"))
    if not asked.interval:
        return number(record.value) + unit
    if record.low is None or record.high is None:
        raise LookupError(f"{record.name} has no interval; leave out ±")
    return f"{number(record.value)}{unit} ({number(record.low)} to {number(record.high)}{unit})"


def _number(value: float, spec: str | None, whole: bool) -> str:
    if spec is None:
        spec = ",.0f" if whole or abs(value) >= 1000 else f".{_digits(value)}f"
    text = format(value * 100, spec[:-1] + "f") if spec.endswith("%") else format(value, spec)
    return text.replace(",", "\u202f").replace("-", "\u2212")


def _digits(value: float) -> int:
    """Decimals that show three significant digits."""
    from math import floor, log10
    return 3 if value == 0 else max(0, 2 - floor(log10(abs(value))))


def _unit(unit: str, prefix: str, percent: bool) -> str:
    if percent:
        return "\u00a0%"
    if unit == "1":
        return f"\u00a0{prefix}" if prefix else ""
    if unit == "parameters":
        return f"\u00a0{prefix} parameters" if prefix else "\u00a0parameters"
    word = {"percentage point": "points"}.get(unit, COUNTED.get(unit, unit))
    return f"\u00a0{prefix}{word}"
