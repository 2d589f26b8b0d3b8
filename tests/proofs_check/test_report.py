"""The report: escaped, self-contained, complete; its figures, its graph and its numbers."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from proofs_check.claim import KINDS, STATUSES
from proofs_check.ledger import load_ledger
from proofs_check.report import words
from proofs_check.report.figures import FIGURES, INK, figures_for
from proofs_check.report.graph import NODE_HEIGHT, NODE_WIDTH, layers, layout, reduce_links
from proofs_check.report.html import flattened, mathml, render_html, shape, write_html
from tests.proofs_check.made_up import (
    BIAS_CURVES,
    COUNTEREXAMPLE,
    LOOSENESS,
    claim,
    report,
    rich_pairs,
    row,
)

VOID = {"meta", "link", "br", "img", "hr", "input", "source"}


class Page(HTMLParser):
    """Collects tags, ids and links of a page, and checks that tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def ids(self) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get("id"))]


@pytest.fixture(scope="module")
def text() -> str:
    return render_html(report(*rich_pairs()))


def test_the_page_is_well_formed_and_every_anchor_exists(text: str) -> None:
    page = Page(text)
    assert page.open == []
    ids = page.ids()
    assert len(ids) == len(set(ids))
    targets = [attrs.get("href") or "" for tag, attrs in page.tags if tag == "a"]
    assert {t[1:] for t in targets if t.startswith("#")} <= set(ids)


def test_the_page_loads_nothing(text: str) -> None:
    page = Page(text)
    assert not {"script", "img", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attrs.get(name) or ""
            remote = re.match(r"(https?:)?//", value)
            assert not remote or (tag, name) == ("a", "href"), (tag, attrs)
    styles = " ".join(re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL))
    assert "@import" not in styles
    assert "url(" not in styles


def test_every_text_is_escaped(text: str) -> None:
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<b>ResNet</b>" not in text
    assert "Statement of N1: a &lt; b &amp; c" in text


def test_the_page_is_complete(text: str) -> None:
    for part in (
        "Every computed verdict is as expected",
        "1 refuted",
        "mutants killed",
        "python -m proofs_check --only S2.unbiased",
        "Real images",
        "MLP 64-32-32-10",
        "disputed in the paper",
        "a repair",
        "no evidence yet",
        "line one\nline two",
        'href="https://arxiv.org/abs/1"',
        "<math",
    ):
        assert part in text, part
    assert COUNTEREXAMPLE.splitlines()[1] in text
    assert text.count("<figure>") == 3


def test_a_failed_run_says_so() -> None:
    failed = render_html(report((row(), claim(mutant="holds")), (row("A2"), None)))
    assert "2 of 2 claims did not pass" in failed
    assert "Needs attention" in failed
    assert "1 planted error was not rejected." in failed
    assert "Expected <b>holds</b>, got <b>inconclusive</b>." in failed
    assert "no check is registered" in failed


def test_a_broken_budget_is_shown() -> None:
    assert "over the budget" in render_html(report((row(), claim(false_alarm=1.0))))


def test_the_whole_ledger_renders(tmp_path: Path) -> None:
    write_html(report(*((r, None) for r in load_ledger().values())), tmp_path / "index.html")
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert set(load_ledger()) <= set(page.ids())


def test_a_formula_that_does_not_convert_is_shown_as_code() -> None:
    assert "<code>" in mathml(r"\frac{<a>") or "<math" in mathml(r"\frac{<a>")
    assert "<a>" not in mathml(r"\frac{<a>")


@pytest.mark.parametrize(
    ("id_", "evidence", "count"),
    [
        ("ladder", {"looseness": LOOSENESS}, 2),
        ("S2", {"bias_curves": BIAS_CURVES}, 1),
        ("S2", {"bias_curves": BIAS_CURVES[:1]}, 1),
        ("S2", {"bias_curves": [{"network": "n", "sigma": [0.1, 0.2], "exact": ["NaN", 1.0]}]}, 1),
    ],
)
def test_figures_are_xml_in_the_colours_of_the_page(
    id_: str, evidence: dict[str, Any], count: int
) -> None:
    figures = figures_for(id_, evidence)
    assert len(figures) == count
    for figure in figures:
        root = ET.fromstring(figure["svg"])
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "width" not in root.attrib
        assert "currentColor" in figure["svg"]
        assert INK not in figure["svg"]
        assert "#000000" not in figure["svg"]
        assert "<metadata" not in figure["svg"]


@pytest.mark.parametrize("id_", FIGURES)
@pytest.mark.parametrize(
    "evidence", [{}, {"looseness": [], "bias_curves": []}, {"looseness": LOOSENESS[:1]}]
)
def test_without_its_evidence_there_is_no_figure(id_: str, evidence: dict[str, Any]) -> None:
    assert figures_for(id_, evidence) == []


def test_a_figure_is_the_same_every_time() -> None:
    evidence = {"looseness": LOOSENESS}
    assert figures_for("ladder", evidence) == figures_for("ladder", evidence)


def test_the_graph_stands_every_claim_right_of_what_it_builds_on() -> None:
    claims = [{"id": r.id, "depends": list(r.depends)} for r in load_ledger().values()]
    graph = layout(claims)
    x = {node.id: node.x for node in graph.nodes}
    assert {*x, *graph.alone} == set(load_ledger())
    assert all(x[edge.start] + NODE_WIDTH < x[edge.end] for edge in graph.edges)
    for a in graph.nodes:
        assert a.x + NODE_WIDTH <= graph.width
        assert a.y + NODE_HEIGHT <= graph.height + 1e-9
        assert a.y >= 0
        for b in graph.nodes:
            assert a is b or a.x != b.x or abs(a.y - b.y) >= NODE_HEIGHT


def test_links_that_follow_from_others_are_left_out() -> None:
    parents: dict[str, tuple[str, ...]] = {"a": (), "b": ("a",), "c": ("a", "b")}
    assert layers(parents) == {"a": 0, "b": 1, "c": 2}
    assert reduce_links(parents) == {"a": (), "b": ("a",), "c": ("b",)}


def test_an_empty_graph_and_unknown_links() -> None:
    graph = layout([{"id": "a", "depends": ["gone"]}])
    assert (graph.nodes, graph.edges, graph.alone) == ((), (), ("a",))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (1234, "1234"),
        (12345, "12\u2009345"),
        (0.5, "0.5"),
        (0.0123456, "0.01235"),
        (123456.7, "123\u2009457"),
        (1.5e-9, "1.5\u2009×\u200910⁻⁹"),
        (-2e27, "−2\u2009×\u200910²⁷"),
        (0.0, "0"),
        (-4.0, "−4"),
    ],
)
def test_numbers_are_set_as_in_a_book(value: float, text: str) -> None:
    assert words.format_number(value) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "scalar"),
        (None, "scalar"),
        ("a\nb", "text"),
        ([], "empty"),
        ({}, "empty"),
        ([1, None], "items"),
        ([{"a": 1}], "table"),
        ([{"a": [1]}], "list"),
        ({"a": 1}, "map"),
    ],
)
def test_evidence_is_shown_by_its_shape(value: Any, expected: str) -> None:
    assert shape(value) == expected


def test_tables_inside_rows_become_columns() -> None:
    assert flattened([{"a": 1, "b": {"c": 2}}]) == [{"a": 1, "b c": 2}]
    assert flattened([[1], [2]]) == [[1], [2]]


def test_every_word_has_an_icon_and_a_meaning() -> None:
    assert set(words.ICONS) == set(words.MEANINGS) == set(STATUSES)
    assert len(set(words.ICONS.values())) == len(STATUSES)
    assert set(words.KIND_MEANINGS) == set(KINDS)


def test_durations() -> None:
    assert words.format_seconds(0.01) == "<\u20090.1\u2009s"
    assert words.format_seconds(2.0) == "2.0\u2009s"
    assert words.format_seconds(120.0) == "2.0\u2009min"
