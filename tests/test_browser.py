"""The committed edition in a real browser, opened from files: light, dark and as narrow as a phone.

`make test` looks at a few pages, `make test-full` at every one, in every look.
"""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from medbench.book import runner
from medbench.book.assemble import NOT_CLINICAL, output
from medbench.book.chapters import Checkout

PLACE = Checkout()
AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text()
LOOK_AT = (Path(__file__).parent / "axe" / "look_at.js").read_text()
LOOKS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (375, "light")}
# what the theme itself does, on every page
THEME = {"label-content-name-mismatch", "region"}
QUICK = ("book/intro", "book/chapters/05_performer", "book/chapters/10_training", "book/references")

MADE = ("genindex", "py-modindex", "search")            # pages that Sphinx makes by itself
PAGES = sorted(p.relative_to(PLACE.committed.parent).with_suffix("").as_posix() for p in
               [*PLACE.committed.glob("*.md"), *PLACE.committed.glob("chapters/*.ipynb")])


@pytest.fixture(scope="session")
def html():
    """The folder of the rendered edition."""
    assert PLACE.edition_device, "there is no committed edition; `make edition` makes it"
    runner.html(PLACE)
    return output(PLACE, committed=True) / "html"


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium; playwright's own download is not used."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no browser; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, html):
    """A function that opens a page in one look and gives the tab with what went wrong so far."""
    contexts = []

    def open_page(name, look="light"):
        width, scheme = LOOKS[look]
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(120_000)                 # a busy machine is no finding
        tab, wrong = context.new_page(), []
        tab.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        tab.on("request", lambda r: wrong.append(f"network: {r.url}") if r.url.startswith("http") else None)
        tab.on("requestfailed", lambda r: wrong.append(f"not loaded: {r.url}"))
        tab.goto(f"file://{html}/{name}", wait_until="load")
        tab.wait_for_function("!document.querySelector('script[src*=mathjax]') || window.MathJax?.startup?.promise")
        tab.evaluate("window.MathJax?.startup?.promise")
        return tab, wrong
    yield open_page
    for context in contexts:
        context.close()


def look_at(visit, name, look):
    """Everything that is wrong with a page in one look."""
    tab, wrong = visit(f"{name}.html", look)
    seen = tab.evaluate(LOOK_AT.split("\n", 1)[1])
    wrong += [f"{seen['overflow']} px wider than the window"] if seen["overflow"] > 0 else []
    wrong += [f"theme is {seen['theme']}"] if seen["theme"] != LOOKS[look][1] else []
    wrong += [f"mathematics not rendered: {text}" for text in seen["raw"] + seen["bad"]]
    wrong += [f"image: {text}" for text in seen["images"]]
    wrong += [f"{seen['solutions']} solutions are open"] if seen["solutions"] else []
    wrong += [] if NOT_CLINICAL in seen["text"] else [f"does not say {NOT_CLINICAL!r}"]
    tab.add_script_tag(content=AXE)
    for violation in tab.evaluate("async () => (await axe.run({preload: false})).violations"):
        if violation["id"] not in THEME:
            where = "; ".join(" ".join(node["target"][0:1]) for node in violation["nodes"][:3])
            wrong.append(f"axe {violation['id']}: {violation['help']} at {where}")
    return wrong


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", QUICK)
def test_a_few_pages(visit, name, look):
    assert look_at(visit, name, look) == []


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", [page for page in (*PAGES, *MADE) if page not in QUICK])
def test_every_page(visit, name, look):
    assert look_at(visit, name, look) == []


@pytest.mark.slow
def test_no_page_is_left_out(html):
    assert {p.relative_to(html).with_suffix("").as_posix() for p in html.rglob("*.html")
            if "_static" not in p.parts} == {*PAGES, *MADE, "index"}


def test_search_finds_a_chapter(visit):
    tab, wrong = visit("search.html?q=performer")
    tab.wait_for_selector("#search-results li a")
    found = tab.eval_on_selector_all("#search-results li a", "all => all.map(a => a.getAttribute('href'))")
    assert any("05_performer" in link for link in found)
    assert wrong == []


def test_the_folder_opens_on_the_first_page(html):
    assert "url=book/intro.html" in (html / "index.html").read_text()


def test_the_first_page_leads_to_every_chapter(visit):
    tab, wrong = visit("book/intro.html")
    links = tab.eval_on_selector_all("nav a", "all => all.map(a => a.href)")
    for name in PLACE.chapters:
        assert any(link.endswith(f"{name}.html") for link in links), name
    tab.goto(next(link for link in links if link.endswith("05_performer.html")))
    assert "Run this chapter" in tab.inner_text("article")
    assert wrong == []


def test_the_checks_can_fail(visit, tmp_path, html):
    """A page with one of each mistake is not let through."""
    page = html / "broken-for-the-test.html"
    page.write_text((html / "book" / "intro.html").read_text().replace("</article>", """
        <div style="width: 3000px">wide</div><img src="none.png"><script>console.error("oh")</script>
        <script src="https://example.org/x.js"></script><div class="math">\\\\(x\\\\</div></article>""")
                    .replace('../_static', '_static'))
    try:
        wrong = "\n".join(look_at(visit, "broken-for-the-test", "light"))
    finally:
        page.unlink()
    for words in ("px wider", "image: none.png", "console: oh", "network: https://example.org",
                  "mathematics not rendered", "axe image-alt"):
        assert words in wrong
