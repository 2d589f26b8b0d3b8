"""Every page of docs/ runs from top to bottom and prints what it shows."""

import doctest
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def failures(text):
    """Return what the Python blocks of a page, run in order, print that they do not show."""
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    page = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "page", None, None)
    assert page.examples
    report: list[str] = []
    doctest.DocTestRunner().run(page, out=report.append)
    return "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page):
    assert failures(page.read_text()) == ""


def test_the_page_is_found():
    assert "testing_an_estimator.md" in [page.name for page in PAGES]


def test_a_wrong_page_is_noticed():
    block = "text\n```python\n>>> a = 1\n\n```\ntext\n```python\n>>> a + 1\n{}\n\n```\n"
    assert failures(block.format(2)) == ""
    assert "Expected:" in failures(block.format(3))


def test_the_measured_rates_are_those_of_the_record():
    text = (ROOT / "docs" / "testing_an_estimator.md").read_text()
    record = json.loads((ROOT / "experiments" / "records" / "false_alarms.json").read_text())
    rates = {(r["law"], r["test"]): r["rate"] for r in record["one_mean"] if r["n"] == 100}
    rows = re.findall(r"^\| (\S.*?) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) (?:%|of)", text, re.M)
    assert len(rows) == 3
    for law, *shown in rows:
        for test, number in zip(("t-test", "z-test", "T1, fixed n"), shown, strict=True):
            digits = len(number.partition(".")[2])
            assert abs(float(number) - 100 * rates[law, test]) <= 0.51 * 10**-digits * (
                number != "0"
            )
    pair = [
        r for r in record["unequal_laws"] if (r["other"], r["n"], r["test"]) == ("0", 100, "T2")
    ]
    assert [(r["delta"], f"{100 * r['rate']:.1f} %" in text) for r in pair] == [
        (0.01, True),
        (1e-9, True),
    ]
