"""The built site: it loads nothing from the network, its links lead somewhere, and its formulas and pictures are whole.

`make docs` builds the site and runs this file; without a site these tests skip.
"""

import re
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

import circsde

ROOT = Path(__file__).resolve().parents[1]
SITE = (ROOT / "docs" / "_build" / "html").resolve()
PAGES = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if "_static" not in path.parts)

CODE = re.compile(r"<(script|style|pre|code)\b.*?</\1>", re.DOTALL)
FORMULA = re.compile(r'<(span|div)\b[^>]*class="math[ "].*?</\1>', re.DOTALL)
NUMBER = re.compile(r'<span class="eqno">.*?</span>', re.DOTALL)
TAG = re.compile(r"<[^>]*>")
TEX = re.compile(r"\$|\\[a-zA-Z]+|\\[()\[\]]")


class Page:
    """The parts of a page that the tests read.

    Attributes:
        anchors: What a link can point to.
        links: Targets of links.
        loaded: Scripts, style sheets, pictures and frames.
        pictures: Source and alternative text of each picture.
        prose: Text outside of formulas and code.
    """

    def __init__(self, text: str) -> None:
        self.anchors = set(re.findall(r'<\w[^>]*\s(?:id|name)="([^"]+)"', text))
        tags = re.findall(r"<(?:a|link|img|script|iframe|source|video)\b[^>]*>", text)
        self.links = [unescape(attribute(tag, "href")) for tag in tags if tag.startswith("<a ") and " href=" in tag]
        self.loaded = [attribute(tag, "src") for tag in tags if " src=" in tag]
        self.loaded += [attribute(tag, "href") for tag in tags if tag.startswith("<link") and 'rel="search"' not in tag]
        self.pictures = [(attribute(tag, "src"), attribute(tag, "alt")) for tag in tags if tag.startswith("<img")]
        self.prose = TAG.sub("", FORMULA.sub("", NUMBER.sub("", CODE.sub("", text))))


def attribute(tag: str, name: str) -> str:
    found = re.search(rf'\s{name}="([^"]*)"', tag)
    return found[1] if found else ""


@cache
def page(name: str) -> Page:
    return Page((SITE / name).read_text())


def dead_links(name: str, text: Page) -> list[str]:
    """Links of a page, and what it loads, that lead to no file or no anchor."""
    dead = []
    for link in text.links + text.loaded:
        if re.match(r"(https?|mailto|data):", link):
            continue
        path, _, anchor = link.partition("#")
        file = (SITE / name).parent.joinpath(unquote(path.partition("?")[0])).resolve() if path else SITE / name
        if not file.is_file():
            dead.append(link)
        elif anchor and file.suffix == ".html":
            target = text if file == SITE / name else page(str(file.relative_to(SITE)))
            dead += [link] * (unquote(anchor) not in target.anchors | {"top"})
    return dead


def network(text: Page) -> list[str]:
    """The addresses from which a page loads something over the network."""
    return [source for source in text.loaded if re.match(r"(https?:)?//", source)]


def raw_tex(text: Page) -> list[str]:
    """Dollars and commands of TeX that readers would see."""
    return TEX.findall(text.prose)


def nameless_pictures(text: Page) -> list[str]:
    """Pictures without words, or with a file name for words."""
    return [source for source, words in text.pictures if " " not in words or re.search(r"\.(png|svg|jpe?g)$", words)]


def fixed_tables(text: str) -> list[str]:
    """Tables, as source, that are in no box that scrolls where the page is narrower: neither the theme's nor ours."""
    tables = re.finditer(r"(<div[^>]*>)?\s*<table\b([^>]*)>", text)
    scrolls = ("pst-scrollable-table-container", "dataframe")
    return [found[0] for found in tables if not any(name in found[0] for name in scrolls)]


site = pytest.mark.skipif(not PAGES, reason="there is no built site: run `make docs`")


@site
def test_no_page_loads_anything_from_the_network() -> None:
    assert {name: found for name in PAGES if (found := network(page(name)))} == {}


@site
def test_the_style_sheets_and_scripts_of_our_own_load_nothing_from_the_network() -> None:
    files = [path for path in (SITE / "_static").rglob("*.css")]
    assert files
    for path in files:
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text()), path


@site
def test_every_link_leads_to_a_file_and_an_anchor() -> None:
    assert {name: found for name in PAGES if (found := dead_links(name, page(name)))} == {}


@site
def test_formulas_are_drawn_by_the_copy_of_mathjax_beside_the_pages() -> None:
    drawn = [name for name in PAGES if 'class="math ' in (SITE / name).read_text()]
    assert "mathematics.html" in drawn
    for name in drawn:
        assert any(source.partition("?")[0].endswith("_static/mathjax/tex-svg.js") for source in page(name).loaded), (
            name
        )


@site
def test_no_tex_is_left_outside_of_formulas() -> None:
    assert {name: found for name in PAGES if (found := raw_tex(page(name)))} == {}


@site
def test_every_picture_has_words_for_those_who_do_not_see_it() -> None:
    nameless = {name: found for name in PAGES if (found := nameless_pictures(page(name)))}
    assert nameless == {}, "a cell of a tutorial names its picture by the option `mystnb: {image: {alt: words}}`"


@site
def test_no_table_is_wider_than_the_page_without_scrolling() -> None:
    """The style sheets let the boxes around tables of pages and of outputs scroll."""
    rules = "".join(path.read_text() for path in (SITE / "_static").rglob("*.css"))
    for box in (r"\.pst-scrollable-table-container", r"\.cell_output \.output"):
        assert re.search(box + r"\s*\{[^}]*overflow(-x)?:\s*auto", rules), box
    assert {name: found for name in PAGES if (found := fixed_tables((SITE / name).read_text()))} == {}


@site
def test_no_summary_is_cut_at_the_number_of_an_equation() -> None:
    cut = re.compile(r"\(eqs?\.\s*</p>")
    assert [name for name in PAGES if cut.search((SITE / name).read_text())] == []


@site
def test_no_first_words_of_a_docstring_are_taken_for_a_type() -> None:
    typed = re.compile(r">Type<span class=\"colon\">")
    assert [name for name in PAGES if typed.search((SITE / name).read_text())] == []


@site
def test_no_page_shows_where_or_with_which_complaints_it_was_built() -> None:
    said = re.compile(rf"{re.escape(str(ROOT))}|site-packages|Warning:|&lt;matplotlib\.")
    outputs = re.compile(r'<div class="cell_output.*?</div>\s*</div>\s*</div>', re.DOTALL)
    for name in PAGES:
        for output in outputs.findall((SITE / name).read_text()):
            assert not said.search(output), name


def test_every_public_name_is_in_the_reference_by_task() -> None:
    listed = set(re.findall(r"^   ~circsde\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE))
    assert listed == set(circsde.__all__) - {"models", "solvers", "studies"}, "docs/api.md lists the names of circsde"


def test_a_dead_link_is_noticed() -> None:
    assert dead_links("index.html", Page('<a href="no-such-page.html">x</a><a href="#nowhere">y</a>')) != []
    assert dead_links("index.html", Page('<a href="#here">x</a><p id="here">y</p>')) == (["#here"] if not PAGES else [])


def test_something_from_the_network_is_noticed() -> None:
    loaded = Page(
        '<script src="https://a.org/x.js"></script><link rel="stylesheet" href="//a.org/x.css"><img src="x.png">'
    )
    assert network(loaded) == ["https://a.org/x.js", "//a.org/x.css"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<p>a price of $5</p>", ["$"]),
        (r"<p>the rate \kappa</p>", [r"\kappa"]),
        (r"<p>the rate \(k\)</p>", [r"\(", r"\)"]),
        (r'<p>the rate <span class="math notranslate">\(k\)</span> and <code>echo $PATH</code></p>', []),
        (r'<div class="math"><span class="eqno">(1)</span>\[k\]</div><p>and $k</p>', ["$"]),
    ],
)
def test_tex_outside_of_formulas_is_noticed(text: str, left: list[str]) -> None:
    assert raw_tex(Page(text)) == left


def test_a_picture_without_words_is_noticed() -> None:
    text = '<img src="a.png"><img src="b.png" alt="_images/b.png"><img src="c.png" alt="Errors against steps">'
    assert nameless_pictures(Page(text)) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('<div class="pst-scrollable-table-container"><table class="table"><tr></tr></table></div>', 0),
        ('<table border="1" class="dataframe"><tr></tr></table>', 0),
        ('<div class="box"><table class="table"><tr></tr></table></div><p>x</p><table></table>', 2),
    ],
)
def test_a_table_that_does_not_scroll_is_noticed(text: str, count: int) -> None:
    assert len(fixed_tables(text)) == count
