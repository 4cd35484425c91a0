"""The lint of prose: no measured quantity is typed by hand.

What lives here, top to bottom: `typed_numbers` over the whole book; `findings` in one text; what is left out of a text.
"""

from __future__ import annotations

import re

from . import notebook as nb
from .chapters import Checkout

NUMBER = r"(?<![\w.])[~≈±+\-−]?\d[\d.,\u202f ]*(?:[eE][+\-]?\d+)?"
UNITS = (r"ms|µs|s|sec|seconds?|%|per ?cent|percentage points?|[kMGT](?:MACs?|FLOPs?|FLOPS)(?:/s)?"
         r"|[kKMGT]i?B(?:/s)?|[kmM]?J|joules?|(?:images|samples)(?:/s| a second| per second)"
         r"|(?:k|M|million|thousand) ?(?:parameters|params)")
QUANTITY = re.compile(rf"(?P<quantity>{NUMBER}\s?\\?(?:{UNITS}))(?![\w/-])")
FREE = re.compile(r"95\s?\\?%(?=(?:[ -]\w+){0,2}[ -](?:intervals?|half-width))")

FENCE = re.compile(r"(?P<marks>`{3,}|~{3,}|:{3,})\s*(?P<info>[^`]*)$")
CODE = re.compile(r"[a-z]|\{(code|code-block|code-cell|literalinclude|bibliography|raw|toctree|auto\w+)\b")
ROLE = re.compile(r"\{[a-z:_-]+\}`[^`]*`")
OPTION = re.compile(r"\s*:[a-z-]+:")
SPAN = re.compile(r"(?<!`)(`+)(?!`)(?:(?!\n\n).)+?(?<!`)\1(?!`)", re.S)
LINK = re.compile(r"https?://\S+|\]\([^)]*\)")


def typed_numbers(place: Checkout) -> list[str]:
    """`file:line: quantity` for every measured quantity in `book/*.md` and in markdown cells of the chapters."""
    found = []
    for path in sorted(place.committed.glob("*.md")):
        found += [f"{path.relative_to(place.root)}:{line}: {words}" for line, words in findings(path.read_text())]
    for path in nb.sources(place):
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in _markdown(path.read_text().splitlines()))
        found += [f"{path.relative_to(place.root)}:{line}: {words}" for line, words in findings(text)]
    return found


def findings(text: str) -> list[tuple[int, str]]:
    """Line and words of every measured quantity in a text of MyST markdown."""
    return [(number, match["quantity"].strip()) for number, line in enumerate(_said(text).splitlines(), 1)
            for match in QUANTITY.finditer(FREE.sub("", line))]


def _markdown(lines: list[str]) -> list[str]:
    """A percent source with everything but its markdown cells emptied, so that line numbers stay."""
    inside, kept = False, []
    for line in lines:
        if line.startswith("# %%"):
            inside = "[markdown]" in line
            kept.append("")
        else:
            kept.append(line if inside else "")
    return kept


def _said(text: str) -> str:
    """The text without code, roles, links and options of directives, on the same lines."""
    kept, fences = [], []                                    # open fences: (marks, whether code is inside)
    for line in text.splitlines():
        match, code = FENCE.match(line.strip()), bool(fences) and fences[-1][1]
        if match and not match["info"] and fences and match["marks"].startswith(fences[-1][0]):
            fences.pop()
        elif match and not code:
            fences.append((match["marks"], not match["info"] or bool(CODE.match(match["info"]))))
        kept.append("" if match or code or OPTION.match(line) else line)
    text = "\n".join(kept)
    for pattern in (ROLE, SPAN, LINK):
        text = pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return text
