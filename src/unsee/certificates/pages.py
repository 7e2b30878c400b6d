"""The document of a certificate as one HTML file, which loads nothing."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unsee.certificates.document import Document


def html(document: Document) -> str:
    """Returns the page; the same document always gives the same text."""
    environment = Environment(
        loader=PackageLoader("unsee.certificates", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (files("unsee.certificates") / "certificate.css").read_text(encoding="utf-8")
    environment.globals["style"] = Markup(style)  # our own file
    environment.tests["of"] = lambda block, name: type(block).__name__ == name
    return environment.get_template("certificate.html.j2").render(document=document)
