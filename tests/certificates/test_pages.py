"""The document: two pages, the same content in HTML and PDF, and readable everywhere."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pypdfium2
import pytest

from support import chromium
from support.certificates import equivalence_tests, full_request, sample_certificate
from support.chromium import CONTRAST
from unsee.certificates import Certificate, EarlierPatch, ReAudit, Written, write_certificate
from unsee.certificates.document import Document, as_text, document
from unsee.certificates.pages import html
from unsee.certificates.pdf import pdf
from unsee.errors import CertificateError, RunError

PATH = chromium.find()
needs_browser = pytest.mark.skipif(
    PATH is None, reason="no Chromium found: apt-get install chromium to run these tests"
)


def crowded_changes() -> dict[str, Any]:
    """A record whose texts are as long as they come."""
    others = {
        f"attack_number_{number}": [
            {
                "access": ["black_box"],
                "parameters": {"attack": {f"field_{n}": "x" * 30 for n in range(12)}},
                "models": {
                    "unlearned": {"answers": {"forget": {"before": 0.1, "after": 0.5, "n": 60}}}
                },
            }
        ]
        for number in range(30)
    }
    return {
        "attacks": others,
        "not_attacked": [f"a_rather_long_name_{number}" for number in range(40)],
        "equivalence": equivalence_tests("distinguishable", measure="x" * 250 + "/vqa/accuracy"),
        "guarantees": {"changed_tensors": 10**9, "total_tensors": 10**9, "reason": "long " * 700},
    }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificate]:
    folder = tmp_path_factory.mktemp("runs")
    audits = tuple(
        ReAudit(
            who="forgotten_earlier",
            request_id=f"{number}-" + "y" * 200,
            measure="forget_holdout/vqa/accuracy",
            before=0.1,
            after=0.9,
            margin=0.05,
            passed=False,
        )
        for number in range(60)
    )
    earlier = tuple(EarlierPatch(request_id="z" * 200, patch_id="0" * 64) for _ in range(40))
    crowded = full_request(
        id="Łódź Ελλάς Київ ירושלים 張偉 <b>&amp;" + "w" * 200,
        re_audit=audits,
        earlier=earlier,
        decision="not_accepted",
        reasons=("reason " * 80, "reason " * 80),
    )
    return {
        "whole": sample_certificate(folder / "whole"),
        "bare": sample_certificate(
            folder / "bare",
            full_request(
                id=None, photographs=None, re_audit=(), earlier=(), decision=None, received=None
            ),
            measures=None,
            target=None,
            reference=None,
            attacks=None,
            equivalence=None,
        ),
        "crowded": sample_certificate(folder / "crowded", crowded, **crowded_changes()),
    }


@pytest.fixture(scope="module")
def written(
    certificates: dict[str, Certificate], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Written]:
    folder = tmp_path_factory.mktemp("written")
    return {name: write_certificate(c, folder / name) for name, c in certificates.items()}


def texts(found: Document) -> list[str]:
    """Every text of a document but headings of tables."""
    lines = [found.title, found.subtitle, found.lead]
    lines += [text for badge in found.badges for text in (badge.label, badge.value)]
    for section in found.sections:
        lines.append(section.title)
        for block in section.blocks:
            for name in ("text", "items", "lines", "rows"):
                value = getattr(block, name, ())
                rows = [value] if isinstance(value, str) else value
                for row in rows:
                    lines += [row] if isinstance(row, str) else list(row)
    return lines


@contextmanager
def opened(path: Path | None) -> Iterator[list[Any]]:
    """The pages of a PDF."""
    assert path is not None
    file = pypdfium2.PdfDocument(path)
    try:
        yield [file[number] for number in range(len(file))]
    finally:
        file.close()


def contents(path: Path | None) -> str:
    """The text of a PDF."""
    with opened(path) as pages:
        return "".join(page.get_textpage().get_text_range() for page in pages)


def squeezed(text: str) -> str:
    """A text without white space, which line breaks change; PDFs write some hyphens otherwise."""
    return re.sub(r"[\s\u00ad\ufffe\u0002]", "", text)


@pytest.mark.parametrize("name", ["whole", "bare", "crowded"])
def test_pdf_has_two_pages_with_every_text_inside_them(
    name: str, written: dict[str, Written], certificates: dict[str, Certificate]
) -> None:
    content = ""
    with opened(written[name].pdf) as pages:
        assert len(pages) == 2
        for page in pages:
            text = page.get_textpage()
            content += text.get_text_range()
            for number in range(text.count_rects()):
                left, bottom, right, top = text.get_rect(number)
                assert left >= 20 and right <= page.get_width() - 20
                assert bottom >= 15 and top <= page.get_height() - 15
    if name != "crowded":
        for line in texts(document(certificates[name])):
            assert squeezed(line) in squeezed(content), line


def test_pdf_shows_letters_of_many_scripts_and_says_which_it_cannot(
    written: dict[str, Written],
) -> None:
    content = contents(written["crowded"].pdf)
    for word in ("Łódź", "Ελλάς", "Київ"):
        assert word in content
    assert "U+5F35U+5049" in squeezed(content)
    assert "U+ marks characters that this PDF has no font for" in content


@pytest.mark.parametrize("name", ["whole", "bare", "crowded"])
def test_html_and_pdf_are_the_same_every_time(
    name: str, certificates: dict[str, Certificate]
) -> None:
    shown = document(certificates[name])
    assert html(shown) == html(document(certificates[name]))
    if name == "whole":
        assert pdf(shown) == pdf(shown)


def test_html_has_every_text(certificates: dict[str, Certificate]) -> None:
    import html as escaping

    shown = document(certificates["crowded"])
    page = escaping.unescape(html(shown))
    for line in texts(shown):
        assert line in page, line
    assert "<b>&amp;" not in html(shown)


def test_unsigned_is_said_in_json_html_pdf_and_text(
    written: dict[str, Written], certificates: dict[str, Certificate]
) -> None:
    whole = written["whole"]
    assert '"signature": null' in whole.json.read_text()
    assert whole.html.read_text().count("Not signed") >= 3
    with opened(whole.pdf) as pages:
        assert all("Not signed" in page.get_textpage().get_text_range() for page in pages)
    assert "Not signed" in as_text(document(certificates["whole"]))


def test_certificate_is_not_written_over_another(written: dict[str, Written]) -> None:
    whole = written["whole"]
    with pytest.raises(CertificateError, match="never overwritten"):
        write_certificate(whole.certificate, whole.json.parent)


def test_certificate_that_does_not_fit_on_the_disk_leaves_nothing(
    certificates: dict[str, Certificate], tmp_path: Path
) -> None:
    whole = certificates["whole"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The HTML fits, the PDF with its fonts does not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(html(document(whole)).encode()) + 1, hard))
    try:
        with pytest.raises(RunError, match=r"certificate.pdf cannot be written"):
            write_certificate(whole, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "out").exists()
    assert write_certificate(whole, tmp_path / "out").pdf is not None


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Chromium]:
    assert PATH is not None
    with chromium.Chromium(PATH) as started:
        yield started


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["whole", "crowded"])
def test_page_renders_quietly_and_fits(
    name: str, width: int, scheme: str, browser: chromium.Chromium, written: dict[str, Written]
) -> None:
    page = written[name].html
    browser.open(page, width=width, prefers_color_scheme=scheme)
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(CONTRAST) == []


@needs_browser
@pytest.mark.parametrize("name", ["whole", "bare", "crowded"])
def test_page_prints_on_two_sheets(
    name: str, browser: chromium.Chromium, written: dict[str, Written], tmp_path: Path
) -> None:
    browser.open(written[name].html)
    browser.pdf(tmp_path / "printed.pdf")
    with opened(tmp_path / "printed.pdf") as pages:
        assert len(pages) <= 2
