"""The report in a real browser: no errors, no sideways scrolling, legible in dark mode."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proofs_check.ledger import load_ledger
from proofs_check.report.html import write_html
from tests.proofs_check.made_up import claim, report, rich_pairs, row

pytestmark = pytest.mark.browser
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    odd = claim("A1", mutant="holds", evidence={"long_" * 30: "x" * 200, "row": [["y" * 300]]})
    made = {
        "rich": report(*rich_pairs()),
        "failed": report((row("A1", statement="word" * 60), odd), (row("A2"), None)),
        "ledger": report(*((r, None) for r in load_ledger().values())),
    }
    for name, content in made.items():
        write_html(content, folder / name / "index.html")
    return {name: folder / name / "index.html" for name in made}


def visit(browser: Any, page: Path, width: int, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())


@pytest.mark.parametrize("name", ["rich", "failed", "ledger"])
@pytest.mark.parametrize("width", [400, 1280])
def test_no_errors_and_no_sideways_scrolling(
    browser: Any, pages: dict[str, Path], name: str, width: int
) -> None:
    visit(browser, pages[name], width, "light")
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []
    loaded = "return performance.getEntriesByType('resource').map(e => e.name)"
    assert browser.execute_script(loaded) == []


LUMINANCE = """
const rgb = s => s.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = s => rgb(s).map(v => v / 255)
  .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const contrast = (a, b) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
const css = (e, p) => light(getComputedStyle(e)[p]);
const card = css(document.querySelector('.card'), 'backgroundColor');
const texts = [...document.querySelectorAll(
  '.card .statement, .card dt, .card dd, .card a, .card .verdict, .card .quiet, .card .icon')];
return {ground: css(document.body, 'backgroundColor'),
        worst: Math.min(...texts.map(e => contrast(css(e, 'color'), card)))};
"""


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_both_colour_schemes_are_legible(
    browser: Any, pages: dict[str, Path], scheme: str, dark: bool
) -> None:
    visit(browser, pages["rich"], 1280, scheme)
    found = browser.execute_script(LUMINANCE)
    assert (found["ground"] < 0.2) == dark
    assert found["worst"] >= 4.5
