"""The document of a certificate as a PDF of two pages, with embedded fonts."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import closing
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any, Literal, cast

from unsee.certificates.document import (
    Badge,
    Bullets,
    Commands,
    Document,
    Facts,
    Paragraph,
    Section,
    Table,
)
from unsee.errors import require_extra

if TYPE_CHECKING:
    from fpdf import FPDF
    from fpdf.fonts import TTFFont

PAGES = 2
# Sizes of the text (points): the first that fits on the pages is used.
SIZES = (8.4, 7.8, 7.2, 6.6, 5.8, 5.2)
MARGIN, LABEL = 14.0, 31.0  # mm

FONTS: dict[tuple[str, Literal["", "B"]], str] = {
    ("sans", ""): "DejaVuSans.ttf",
    ("sans", "B"): "DejaVuSans-Bold.ttf",
    ("mono", ""): "DejaVuSansMono.ttf",
}

INK, SOFT, RULE = (27, 30, 35), (86, 92, 102), (207, 207, 201)
COLOURS = {
    "good": ((23, 105, 76), (228, 242, 236)),
    "warn": ((138, 90, 0), (251, 240, 217)),
    "bad": ((169, 50, 38), (251, 231, 228)),
    "unknown": ((86, 92, 102), (238, 238, 234)),
}


def pdf(document: Document) -> bytes:
    """Returns the PDF; the same document gives the same bytes with the same version of fpdf2.

    Characters that the embedded fonts (DejaVu: Latin, Greek, Cyrillic, Arabic letters and others,
    no Chinese, Japanese or Korean) do not have are written as code points, such as U+5F20, and the
    foot of the page says so.

    Raises:
        ConfigError: If the package fpdf2 is not installed.
    """
    require_extra("fpdf", "certificates", "the PDF of a certificate")
    for size in SIZES:
        with closing(_Writer(document, size)) as writer:
            writer.write()
            if writer.pdf.page <= PAGES or size == SIZES[-1]:
                content = bytes(writer.pdf.output())
                break
    return content


class _Writer:
    """Writes a document with one size of text."""

    def __init__(self, document: Document, size: float) -> None:
        from fpdf import FPDF

        self.document = document
        self.size = size
        self.line = size * 0.3528 * 1.34  # points to mm
        self.replaced = False
        writer = self

        class Pages(FPDF):
            """A PDF whose pages have a foot."""

            def footer(self) -> None:
                """Writes the foot of a page."""
                writer.foot()

        self.pdf: FPDF = Pages(format="A4")
        self.pdf.set_margins(MARGIN, 11, MARGIN)
        self.pdf.set_auto_page_break(True, 15)
        self.pdf.c_margin = 0
        for (family, style), name in FONTS.items():
            with as_file(files("unsee.certificates") / "fonts" / name) as path:
                self.pdf.add_font(family, style, str(path))
        self.fonts = {key: cast("TTFFont", self.pdf.fonts["".join(key)]) for key in FONTS}
        self.known = {key: set(font.cmap) for key, font in self.fonts.items()}
        self.pdf.set_title(self.text(document.title + ": " + document.subtitle))
        self.pdf.set_creator("unsee")
        self.pdf.set_lang("en")
        self.pdf.set_creation_date(_moment(document.issued))

    def write(self) -> None:
        """Writes all pages."""
        self.pdf.add_page()
        self.head()
        for section in self.document.sections:
            self.section(section)

    def close(self) -> None:
        """Closes the files of the fonts, which the package leaves open."""
        for font in self.fonts.values():
            font.close()

    def text(self, text: str, family: str = "sans", style: Literal["", "B"] = "") -> str:
        """The text with characters that a font lacks written as code points."""
        known = self.known[family, style]
        if all(ord(c) in known or c == "\n" for c in text):
            return text
        self.replaced = True
        return "".join(c if ord(c) in known or c == "\n" else f"U+{ord(c):04X}" for c in text)

    def font(
        self, style: Literal["", "B"] = "", scale: float = 1.0, colour: Sequence[int] = INK
    ) -> None:
        """Sets the sans-serif font."""
        self.pdf.set_font("sans", style, self.size * scale)
        self.pdf.set_text_color(*colour)

    def lines(
        self, text: str, width: float = 0, style: Literal["", "B"] = "", family: str = "sans"
    ) -> None:
        """Writes text that wraps, from where the pen is, and goes to the next line."""
        left = self.pdf.get_x()
        scale = self.pdf.font_size_pt / self.size
        self.pdf.multi_cell(
            width,
            self.line * scale,
            self.text(text, family, style),
            align="L",
            new_x="LMARGIN",
            new_y="NEXT",
        )
        self.pdf.set_x(left if width else self.pdf.l_margin)

    def wrapped(self, text: str, width: float, style: Literal["", "B"] = "") -> list[str]:
        """The lines that a text takes in the present font; nothing is written."""
        lines = self.pdf.multi_cell(
            width,
            self.line,
            self.text(text, "sans", style),
            dry_run=True,
            output="LINES",
            align="L",
        )
        return cast("list[str]", lines)

    def head(self) -> None:
        """Writes the heading, the badges and the verdict."""
        self.font("B", 0.95, SOFT)
        self.lines("unsee", style="B")
        self.font("B", 2.1)
        self.lines(self.document.title, style="B")
        self.font("", 1.0, SOFT)
        self.lines(self.document.subtitle)
        self.pdf.ln(1.5)
        self.badges(self.document.badges)
        self.pdf.ln(1.5)
        self.font("", 1.08)
        self.lines(self.document.lead)

    def badges(self, badges: Sequence[Badge]) -> None:
        """Writes the badges side by side, as high as the highest of them."""
        gap, pad = 1.6, 1.4
        width = (self.pdf.epw - gap * (len(badges) - 1)) / len(badges)
        texts = []
        for badge in badges:
            self.font("B", 1.0)
            texts.append(self.wrapped(badge.value, width - 2 * pad, "B"))
        height = 2 * pad + self.line * (1 + max(len(lines) for lines in texts))
        top = self.pdf.get_y()
        for number, (badge, lines) in enumerate(zip(badges, texts, strict=True)):
            ink, fill = COLOURS[badge.level]
            left = self.pdf.l_margin + number * (width + gap)
            self.pdf.set_fill_color(*fill)
            self.pdf.rect(left, top, width, height, style="F", round_corners=True, corner_radius=1)
            self.font("", 0.9, ink)
            self.pdf.set_xy(left + pad, top + pad * 0.8)
            self.pdf.cell(width - 2 * pad, self.line, self.text(badge.label))
            self.font("B", 1.0, ink)
            for row, line in enumerate(lines, 1):
                self.pdf.set_xy(left + pad, top + pad * 0.8 + row * self.line)
                self.pdf.cell(width - 2 * pad, self.line, line)
        self.pdf.set_xy(self.pdf.l_margin, top + height)

    def section(self, section: Section) -> None:
        """Writes a section, its heading never alone at the foot of a page."""
        self.pdf.ln(self.line * 0.55)
        if self.pdf.will_page_break(self.line * 4):
            self.pdf.add_page()
        y = self.pdf.get_y()
        self.pdf.set_draw_color(*RULE)
        self.pdf.set_line_width(0.2)
        self.pdf.line(self.pdf.l_margin, y, self.pdf.l_margin + self.pdf.epw, y)
        self.pdf.ln(self.line * 0.45)
        self.font("B", 1.18)
        self.lines(section.title, style="B")
        for block in section.blocks:
            self.pdf.ln(self.line * 0.22)
            self.block(block)

    def block(self, block: Any) -> None:
        """Writes a block."""
        if isinstance(block, Paragraph):
            self.font("", 0.94 if block.small else 1.0, SOFT if block.small else INK)
            self.lines(block.text)
        elif isinstance(block, Facts):
            self.facts(block)
        elif isinstance(block, Table):
            self.table(block)
        elif isinstance(block, Bullets):
            self.bullets(block)
        elif isinstance(block, Commands):
            self.commands(block)

    def facts(self, block: Facts) -> None:
        """Writes labels with values."""
        for label, value in block.rows:
            self._keep(value, self.pdf.epw - LABEL)
            top = self.pdf.get_y()
            self.font("", 1.0, SOFT)
            self.pdf.cell(LABEL, self.line, self.text(label))
            self.pdf.set_xy(self.pdf.l_margin + LABEL, top)
            family = "mono" if label in block.digests else "sans"
            self.pdf.set_font(family, "", self.size * (0.92 if family == "mono" else 1.0))
            self.pdf.set_text_color(*INK)
            self.lines(value, self.pdf.epw - LABEL, family=family)
            self.pdf.set_x(self.pdf.l_margin)

    def _keep(self, text: str, width: float) -> None:
        """Starts a page where a row would be torn apart."""
        self.font()
        lines = self.wrapped(text, width)
        if self.pdf.will_page_break(self.line * len(lines)):
            self.pdf.add_page()

    def table(self, block: Table) -> None:
        """Writes a table; its rows are never torn apart."""
        from fpdf.enums import TableBordersLayout
        from fpdf.fonts import FontFace

        self.font()
        self.pdf.set_draw_color(*RULE)
        self.pdf.set_fill_color(255)
        widths = tuple(round(1000 * share) for share in block.widths)
        columns = range(len(block.head))
        with self.pdf.table(
            col_widths=widths,
            text_align=tuple("RIGHT" if c in block.numbers else "LEFT" for c in columns),
            borders_layout=TableBordersLayout.HORIZONTAL_LINES,
            line_height=self.line,
            padding=(0.35, 0.8),
            headings_style=FontFace(emphasis="BOLD", color=SOFT, size_pt=self.size * 0.92),
        ) as table:
            head = table.row()
            for title in block.head:
                head.cell(self.text(title, "sans", "B"))
            for cells in block.rows:
                row = table.row()
                for cell in cells:
                    row.cell(self.text(cell))
        self.pdf.set_x(self.pdf.l_margin)

    def bullets(self, block: Bullets) -> None:
        """Writes a list."""
        indent = 3.2
        for item in block.items:
            self._keep(item, self.pdf.epw - indent)
            self.font()
            top = self.pdf.get_y()
            self.pdf.cell(indent, self.line, "\N{BULLET}")
            self.pdf.set_xy(self.pdf.l_margin + indent, top)
            self.lines(item, self.pdf.epw - indent)
            self.pdf.set_x(self.pdf.l_margin)

    def commands(self, block: Commands) -> None:
        """Writes lines to type."""
        for line in block.lines:
            self.pdf.set_font("mono", "", self.size * 0.92)
            self.pdf.set_text_color(*INK)
            self.lines(line, family="mono")

    def foot(self) -> None:
        """Writes the foot of a page: signature, number of the page, and what was replaced."""
        self.pdf.set_y(-11)
        self.font("", 0.85, SOFT)
        signed = self.document.signed.partition(":")[0].partition(" by ")[0]
        parts = [f"Certificate {self.document.digest[:16]}", signed]
        if self.replaced:
            parts.append("U+ marks characters that this PDF has no font for")
        left = " · ".join(parts)
        self.pdf.cell(self.pdf.epw * 0.85, self.line, self.text(left))
        self.pdf.cell(
            self.pdf.epw * 0.15, self.line, f"Page {self.pdf.page_no()} of {{nb}}", align="R"
        )


def _moment(text: str) -> datetime.datetime:
    """A time of a certificate; the start of the day where it has none."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=None).replace(tzinfo=datetime.UTC)
