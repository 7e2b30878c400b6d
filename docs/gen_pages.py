"""Pages of the documentation site that are made from the code; a MkDocs hook.

`mkdocs.yml` names this file under `hooks`. It adds, before each build,

- `reference/KIND/NAME.md` for every registered method, attack, metric, benchmark and family, and
  `reference/KIND/index.md` with a table of them;
- `reference/api.md`, every name of `unsee.__all__`;
- the tables of `papers.md`;
- `certificate-1.schema.json`, the schema of certificates that ships with the package;
- `tutorial.md`, from `tutorial.ipynb`. The notebook is executed where UNSEE_DOCS_EXECUTE=1 is set
  (`make docs` sets it); otherwise its cells are shown without outputs.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

from unsee.certificates.schema import SCHEMA_ID, json_schema
from unsee.cli.catalogue import KINDS, package_of
from unsee.cli.fields import describe_fields
from unsee.recipes.parsing import format_value
from unsee.registry import Registry

DOCS = Path(__file__).parent
NOTEBOOK = DOCS / "tutorial.ipynb"
PAPERS = "<!-- tables of papers -->"

# What a page says of an object beside its docstring and its fields, by attribute.
FACTS = {
    "access": "Access to the model",
    "needs": "Needs",
    "training_free": "Training-free",
    "reads": "Reads",
    "rests_on": "Computed from",
    "better": "Better",
    "unit": "Unit",
    "hub": "Hub id",
    "ratios": "Percentages to forget",
    "splits": "Splits",
    "model_types": "`model_type` in config.json",
}
# How the commands take an object of each kind.
USAGE = {
    "methods": "unsee unlearn --model DIR --forget {forget} --retain {retain} --method {name}",
    "attacks": "unsee audit --attack {name} --model DIR --forget pocket:forget",
    "metrics": "unsee evaluate --model DIR --data people.jsonl --metrics {name}",
    "benchmarks": "unsee data check {name}",
    "encoders": "unsee unlearn --model DIR --forget photos/ --retain others/",
}
SECTION = re.compile(r"^(Attributes|Args|Returns|Raises|Examples?):$")
LABEL = re.compile(r"^(Source|Differs|Splits): ?(.*)$")


def registry_of(kind: str) -> Registry[Any]:
    """The registry of a kind, such as "methods"."""
    registry: Registry[Any] = getattr(importlib.import_module(package_of(kind)), kind.upper())
    return registry


def sections(item: object) -> dict[str, str]:
    """A docstring's parts by title: "" for the text, "Source", "Differs", "Example", ..."""
    parts: dict[str, list[str]] = {"": []}
    title = ""
    for line in cleandoc(item.__doc__ or "").splitlines():
        heading, label = SECTION.match(line), LABEL.match(line)
        if heading is not None or label is not None:
            title = (heading or label)[1]  # type: ignore[index]
            parts[title] = [label[2]] if label is not None else []
        elif title and not SECTION.match(f"{title}:") and not line.strip():
            title = ""
            parts[""].append("")
        else:
            parts[title].append(line)
    return {title: "\n".join(lines).strip("\n") for title, lines in parts.items()}


def link_papers(text: str) -> str:
    """Text whose arXiv numbers are links."""
    return re.sub(r"\b(\d{4}\.\d{5})\b", r"[\1](https://arxiv.org/abs/\1)", text)


def in_table(text: str) -> str:
    """Text as it may stand in the cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def fact(value: object) -> str:
    """An attribute's value in words; "" where there is nothing to say."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, str):
        return f"`{value}`" if value else ""
    if isinstance(value, Sequence | frozenset):
        values = sorted(value) if isinstance(value, frozenset) else value
        return ", ".join(f"`{v}`" for v in values)
    return ""


def settings_table(title: str, values: Mapping[str, Any]) -> str:
    """A heading and a table of names with values."""
    if not values:
        return ""
    rows = []
    for name, value in values.items():
        listed = value if isinstance(value, tuple) else (value,)
        rows.append([f"`{name}`", ", ".join(f"`{format_value(v)}`" for v in listed)])
    return f"## {title}\n\n" + table(["setting", "value"], rows) + "\n"


def field_table(kind: type) -> str:
    """A heading and a table of a dataclass's fields."""
    rows = []
    for name, field in describe_fields(kind).items():
        choices = ", ".join(f"`{format_value(choice)}`" for choice in field.get("choices", ()))
        bounds = [
            f"{sign} {field[key]}"
            for key, sign in {
                "minimum": "≥",
                "exclusiveMinimum": ">",
                "maximum": "≤",
                "exclusiveMaximum": "<",
            }.items()
            if key in field
        ]
        allowed = choices or ", ".join([field["type"], *bounds])
        description = in_table(field.get("description", ""))
        default = f"`{format_value(field['default'])}`"
        rows.append([f"`{name}`", in_table(allowed), default, description])
    if not rows:
        return ""
    return "## Fields\n\n" + table(["field", "allowed", "default", "meaning"], rows) + "\n"


def page_of(kind: str, name: str, item: Any) -> str:
    """The page of one registered object."""
    parts = sections(item)
    source = parts.get("Source") or getattr(item, "source", "")
    lines = [f"# {name}\n", link_papers(parts[""]), ""]
    for label, text in (("Source", source), ("Differs", parts.get("Differs", ""))):
        if text:
            lines.append(f"**{label}:** {link_papers(in_table(text))}\n")
    if parts.get("Splits"):
        lines.append(f"**Splits:** {in_table(parts['Splits'])}\n")
    facts = [
        [label, fact(getattr(item, key, ""))]
        for key, label in FACTS.items()
        if fact(getattr(item, key, "")) and not (key == "splits" and parts.get("Splits"))
    ]
    facts.append(["Class", f"`{item.__module__}.{item.__qualname__}`"])
    lines += [*(f"- **{label}:** {text}" for label, text in facts), ""]
    if kind in USAGE:
        # Methods that need answers take tables; the others take folders of pictures too.
        asks = "answers" in getattr(item, "needs", ())
        places = ("people.jsonl", "others.jsonl") if asks else ("photos/", "others/")
        usage = USAGE[kind].format(name=name, forget=places[0], retain=places[1])
        lines.append(f"```sh\n{usage}\n```\n")
    for title in ("Example", "Examples"):
        if parts.get(title):
            lines.append(f"## Example\n\n```pycon\n{cleandoc(parts[title])}\n```\n")
    if kind in ("methods", "attacks"):
        lines.append(field_table(item))
    if aliases := getattr(item, "aliases", {}):
        renamed = ", ".join(f"`{old}` (now `{new}`)" for old, new in aliases.items())
        lines.append(f"Earlier names, accepted with a warning for one release: {renamed}.\n")
    lines.append(settings_table("Training defaults", getattr(item, "defaults", {})))
    for preset, values in getattr(item, "presets", {}).items():
        lines.append(settings_table(f"What `{preset}=true` stands for", values))
    lines.append(settings_table("What `unsee compare` tries", getattr(item, "search", {})))
    return "\n".join(line for line in lines if line is not None).rstrip() + "\n"


def index_of(kind: str) -> str:
    """The page that lists the objects of a kind."""
    rows = [
        [
            f"[`{row['name']}`]({row['name']}.md)",
            in_table(row["summary"]),
            link_papers(in_table(row["source"])),
        ]
        for row in registry_of(kind).describe()
    ]
    return (
        f"# {kind.capitalize()}\n\n{KINDS[kind]} `unsee list {kind}` prints this list.\n\n"
        + table(["name", "what it is", "source"], rows)
    )


def papers_tables() -> str:
    """For each kind: what is implemented, of which paper, and how it differs from the paper."""
    lines = []
    for kind in KINDS:
        rows = []
        for name, item in registry_of(kind).items():
            parts = sections(item)
            source = in_table(parts.get("Source") or str(getattr(item, "source", "")))
            link = f"[`{name}`](reference/{kind}/{name}.md)"
            differs = link_papers(in_table(parts.get("Differs", "")))
            rows.append([link, link_papers(source), differs[:1].upper() + differs[1:]])
        lines += [f"## {kind.capitalize()}\n", table(["name", "source", "deviations"], rows)]
    return "\n".join(lines)


def api_page() -> str:
    """Every public name, by what it is."""
    import unsee.api

    registries = [name for name in unsee.__all__ if name.lower() in KINDS]
    others = [n for n in unsee.__all__ if n not in registries and n != "__version__"]
    jobs = [name for name in others if name in unsee.api.__all__ and name.islower()]
    functions = [name for name in others if name not in jobs and name.islower()]
    classes = [name for name in others if name not in jobs and name not in functions]
    options = [f"api.{name}" for name in unsee.api.__all__ if name.endswith("Options")]
    lines = [
        "# Python API\n",
        "Everything below is imported from `unsee`, such as `from unsee import VLM`.\n",
    ]
    groups = {"Jobs": jobs, "Objects": classes, "Functions": functions, "Options": options}
    for title, names in groups.items():
        lines.append(f"## {title}\n")
        lines += [f"::: unsee.{name}\n" for name in names]
    lines.append("## Registries\n")
    lines.append(
        "Each has `names()`, `get(name)`, `items()` and `describe()`, and is filled by the "
        "modules of its folder and by the entry points of other packages "
        "([extending](extending.md)).\n"
    )
    rows = [
        [f"`unsee.{n}`", KINDS[n.lower()], f"[{n.lower()}]({n.lower()}/index.md)"]
        for n in registries
    ]
    lines.append(table(["registry", "what it holds", "registered"], rows))
    lines.append("## Errors\n\n::: unsee.errors\n    options:\n      show_root_heading: false\n")
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """Every page that is made from the code: its path in the site's sources, and its text."""
    made = {"reference/api.md": api_page()}
    for kind in KINDS:
        made[f"reference/{kind}/index.md"] = index_of(kind)
        for name, item in registry_of(kind).items():
            made[f"reference/{kind}/{name}.md"] = page_of(kind, name, item)
    return made


def navigation(kind: str) -> list[str]:
    """A kind's pages in the order of the menu."""
    index = f"reference/{kind}/index.md"
    return [index, *(f"reference/{kind}/{name}.md" for name in registry_of(kind).names())]


def tutorial(execute: bool) -> tuple[str, dict[str, bytes]]:
    """The notebook as Markdown, and the pictures in its outputs by file name.

    Args:
        execute: Run every cell first; an error in one of them is an error here.
    """
    import nbformat
    from nbconvert import MarkdownExporter
    from nbconvert.preprocessors import ExecutePreprocessor

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    if execute:
        ExecutePreprocessor(timeout=600, kernel_name="python3").preprocess(
            notebook, {"metadata": {"path": str(DOCS)}}
        )
    for cell in notebook.cells:
        # Progress bars and notes of libraries; what a cell prints is on standard output.
        cell["outputs"] = [o for o in cell.get("outputs", ()) if o.get("name") != "stderr"]
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    pictures = {f"tutorial-{name}": content for name, content in resources["outputs"].items()}
    for name in resources["outputs"]:
        text = text.replace(f"({name})", f"(tutorial-{name})")
    return text, pictures


def on_config(config: Any) -> Any:
    """Puts the pages of each kind where the menu names `reference/KIND/`."""

    def expand(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {key: expand(value) for key, value in entry.items()}
        if isinstance(entry, list):
            return [expand(value) for value in entry]
        kind = str(entry).removeprefix("reference/").removesuffix("/")
        return navigation(kind) if str(entry).endswith("/") and kind in KINDS else entry

    config.nav = expand(config.nav)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    text, pictures = tutorial(os.environ.get("UNSEE_DOCS_EXECUTE") == "1")
    schema = json.dumps(json_schema(), indent=1, ensure_ascii=False)
    made: dict[str, str | bytes] = {**pages(), "tutorial.md": text, **pictures}
    made[SCHEMA_ID.rpartition("/")[2]] = f"{schema}\n"
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Puts the tables of papers into their page."""
    return markdown.replace(PAPERS, papers_tables())
