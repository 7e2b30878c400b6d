"""The report in a real browser: it renders, is quiet, loads nothing, and fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import chromium
from support.chromium import CONTRAST
from support.report_record import make_run, relearning, write_json
from unsee import report

PATH = chromium.find()
pytestmark = pytest.mark.skipif(
    PATH is None, reason="no Chromium found: apt-get install chromium to run these tests"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Chromium]:
    assert PATH is not None
    with chromium.Chromium(PATH) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    whole = make_run(folder / "whole", name="a-name-that-is-long-enough-to-break-" + "x" * 60)
    bare = folder / "bare"
    bare.mkdir()
    write_json(bare / "summary.json", {"schema": 1, "name": "bare", "kind": "unlearn"})
    # A whole suite: long names of attacks, and areas with further figures.
    attack = relearning(0.2) | {"unsigned_area_to_reference": 0.46}
    attack["curves"]["reference"] = [
        point | {"value": 0.02} for point in attack["curves"]["reference"]
    ]
    tested = {
        "attack": "relearn?share=1.0&seed=1&data=held_out_people&worst_case=quick",
        "step": 20,
        "measure": "forget_holdout/vqa/accuracy",
        "outcome": "distinguishable",
        "side": "above",
        "difference": 0.56,
        "low": 0.4,
        "high": 0.7,
        "margin": 0.05,
        "people": 4,
        "needed": 26,
        "test": "paired t",
    }
    suite = make_run(folder / "suite", attacks={"relearn": [attack] * 4}, equivalence=[tested] * 3)
    return {
        "suite": report.write([suite], folder / "suite.html"),
        "whole": report.write([whole], folder / "whole.html"),
        "bare": report.write([bare], folder / "bare.html"),
        "compared": report.write([whole, bare], folder / "compared.html"),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 820, 1280])
@pytest.mark.parametrize("name", ["whole", "bare", "compared"])
def test_renders_quietly_and_fits(
    name: str, width: int, scheme: str, browser: chromium.Chromium, pages: dict[str, Path]
) -> None:
    page = pages[name]
    browser.open(page, width=width, prefers_color_scheme=scheme)
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.compatMode") == "CSS1Compat"
    headline = "document.querySelector('h1').getBoundingClientRect().height"
    assert browser.evaluate(headline) > 20
    unseen = "[...document.images].filter(i => !i.naturalWidth || !i.clientWidth).length"
    assert browser.evaluate(unseen) == 0
    assert browser.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [390, 1280])
def test_no_label_is_squeezed_and_row_headers_leave_room(
    width: int, browser: chromium.Chromium, pages: dict[str, Path]
) -> None:
    browser.open(pages["suite"], width=width)
    tall = "[...document.querySelectorAll('.pair dt')].filter(e => e.clientHeight > 60).length"
    assert browser.evaluate("document.querySelectorAll('.pair dt').length") == 8
    assert browser.evaluate(tall) == 0
    beyond = (
        "[...document.querySelectorAll('.pair dd')].filter(e => e.getBoundingClientRect().right"
        " > e.closest('figure').getBoundingClientRect().right + 0.5).length"
    )
    assert browser.evaluate(beyond) == 0
    covered = (
        "[...document.querySelectorAll('.scroll')].filter(s => "
        "[...s.querySelectorAll('th[scope=row]')].some(e => e.clientWidth > 0.6 * s.clientWidth))"
        ".length"
    )
    assert browser.evaluate(covered) == 0


def test_charts_are_drawn_and_stay_inside(
    browser: chromium.Chromium, pages: dict[str, Path]
) -> None:
    for width in (390, 1280):
        browser.open(pages["whole"], width=width)
        # Every line of every chart has an extent, and no line or label leaves its place.
        flat = "[...document.querySelectorAll('path.line')].filter(p => !p.getTotalLength())"
        assert browser.evaluate(f"{flat}.length") == 0
        outside = (
            "[...document.querySelectorAll('svg[role=img] *')].filter(e => {"
            "const a = e.getBoundingClientRect();"
            "const b = e.closest('figure, .strip-row').getBoundingClientRect();"
            "return a.width && (a.left < b.left || a.right > b.right + 0.5)}).length"
        )
        assert browser.evaluate(outside) == 0


def test_dark_and_light_differ_and_print_is_light(
    browser: chromium.Chromium, pages: dict[str, Path]
) -> None:
    page = "getComputedStyle(document.body).backgroundColor"
    browser.open(pages["whole"], prefers_color_scheme="light")
    light = browser.evaluate(page)
    browser.open(pages["whole"], prefers_color_scheme="dark")
    assert browser.evaluate(page) != light
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=features)
    assert browser.evaluate(page) == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.querySelector('.contents')).display") == (
        "none"
    )


def test_prints(browser: chromium.Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    # A page of A4 within its margins: a wider table would be cut, or all of it printed smaller.
    browser.open(pages["suite"], width=688)
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.evaluate("document.documentElement.scrollWidth") <= 688
    browser.open(pages["whole"])
    browser.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_the_browser_would_notice(browser: chromium.Chromium, tmp_path: Path) -> None:
    page = tmp_path / "noisy.html"
    page.write_text(
        "<!doctype html><meta charset=utf-8><body style='width:2000px'><p style='color:#aaa'>pale"
        "<script>console.log('hello')</script><img src='beside.png' alt=''>"
    )
    browser.open(page, width=390)
    assert any("hello" in complaint for complaint in browser.complaints())
    assert any(url.endswith("beside.png") for url in browser.requests())
    assert browser.evaluate("document.documentElement.scrollWidth") > 390
    assert len(browser.evaluate(CONTRAST)) == 1
