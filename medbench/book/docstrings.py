"""Docstrings for the API page: from the way they are written in the code to what Sphinx reads.

In the code a docstring has formulas between dollars, names between single backticks, and short paragraphs that start
with `Args:`, `Returns:` and the like. Sphinx wants roles, double backticks and sections. `rewrite` goes from one to
the other; `setup` makes a Sphinx extension of it.
"""

from __future__ import annotations

import re

HEADS = "Args|Arguments|Returns|Raises|Source|Equation|Attributes|Yields"
INLINE = re.compile(rf"^(?P<indent>\s*)(?P<head>{HEADS}):\s+(?P<rest>\S.*)$")
BLOCK = re.compile(rf"^(?P<indent>\s*)(?P<head>{HEADS}):\s*$")
MATH = re.compile(r"(?<![\\$])\$(?!\s)([^$]+?)(?<!\s)\$(?!\$)", re.S)
STRONG = re.compile(r"(?<![\w*])(\*{1,2})(?![\s*])[^*\n]+(?<![\s*])\1(?![\w*])")
CODE = re.compile(r"(?<![`:])`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")


def rewrite(lines: list[str]) -> list[str]:
    """One docstring, as a list of lines, in reStructuredText.

    Formulas become roles, names become literals, and a paragraph that starts with `Args:` or another head on the same
    line stays a paragraph, however its next lines are indented. Sections (a head alone on its line) are left alone.
    """
    return _paragraphs(_inline("\n".join(lines)).split("\n"))


def _inline(text: str) -> str:
    """Formulas and names as Sphinx wants them; a formula may run over a line's end."""
    kept: list[str] = []

    def hide(words: str) -> str:
        kept.append(words)
        return f"\x00{len(kept) - 1}\x00"
    text = re.sub(r"``[^`]+``|:[a-z:]+:`[^`]+`", lambda m: hide(m[0]), text)
    text = MATH.sub(lambda m: hide(":math:`" + re.sub(r"\s*\n\s*", " ", m[1]) + "`"), text)
    text = CODE.sub(lambda m: hide("``" + re.sub(r"\s*\n\s*", " ", m[1]) + "``"), text)
    text = STRONG.sub(lambda m: hide(m[0]), text)
    text = re.sub(r"(?<!\\)([*|])", r"\\\1", text)                        # else RST takes them for marks of its own
    for number, words in enumerate(kept):                                # a role must not touch a letter
        text = re.sub(rf"(?<=[\w)])\x00{number}\x00", lambda _, w=words: "\\ " + w, text)
        text = re.sub(rf"\x00{number}\x00(?=\w)", lambda _, w=words: w + "\\ ", text)
        text = text.replace(f"\x00{number}\x00", words)
    return text


def _paragraphs(lines: list[str]) -> list[str]:
    """Heads with text on their line as paragraphs of their own, their continuation lines at the same indent."""
    out: list[str] = []
    inside: str | None = None                                            # the indent of the paragraph we are in
    for line in lines:
        match, block = INLINE.match(line), BLOCK.match(line)
        indent = len(line) - len(line.lstrip())
        if match or block:
            if out and out[-1].strip():
                out.append("")
            inside = match["indent"] if match else None
            out.append(f"{inside}**{match['head']}**: {match['rest']}" if match else line)
        elif not line.strip() or (inside is not None and indent < len(inside)):
            inside = None
            out.append(line)
        else:
            out.append(line if inside is None else inside + line.strip())
    return out


def setup(app) -> dict:
    """Sphinx calls this; docstrings are rewritten before napoleon reads their sections."""
    def process(app, what, name, obj, options, lines):
        lines[:] = rewrite(lines)
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True}
