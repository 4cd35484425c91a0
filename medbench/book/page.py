"""What Sphinx, docutils and pandas leave undone for readers who use a keyboard or a screen reader.

What lives here, top to bottom: `accessible`, which mends a page's HTML; its registration with Sphinx.
"""

from __future__ import annotations

import re

MENDINGS = (
    # docutils' role for an entry of a bibliography is deprecated; its list wants items
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),
    # pandas' corner cell is no header
    (re.compile(r"<th></th>"), "<td></td>"),
    # what scrolls must be reachable by keyboard
    (re.compile(r'<div class="(math notranslate nohighlight|output text_html|pst-scrollable-table-container)"'),
     r'<div tabindex="0" class="\1"'),
)


def accessible(html: str) -> str:
    """A page's HTML with the mendings made."""
    for pattern, better in MENDINGS:
        html = pattern.sub(better, html)
    return html


def setup(app):
    """Mend every page just before it is written."""
    def mend(app, page, template, context, doctree):
        if "body" in context:
            context["body"] = accessible(context["body"])
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
