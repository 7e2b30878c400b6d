"""Commands, code and names in the documentation are valid and complete."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from experiments.quality.published import page
from typer.main import get_command

from support import ROOT
from support.site import generated_pages
from support.tiny import RECIPES
from unsee.attacks import ATTACKS
from unsee.benchmarks import BENCHMARKS
from unsee.cli import app
from unsee.families import ENCODERS, FAMILIES
from unsee.methods import METHODS
from unsee.metrics import METRICS
from unsee.recipes.catalog import shipped_recipes
from unsee.recipes.finetune import read_finetune
from unsee.recipes.unlearn import read_recipe

REPOSITORY = "https://github.com/unsee-ml/unsee/blob/main/"
SITE = "https://unsee-ml.github.io/unsee/"
GENERATED = {*generated_pages(), "tutorial.md"}
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language, "" for those that name none."""
    text = (ROOT / page).read_text("utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for named, block in fenced if named == language]


def commands() -> dict[str, typer.core.TyperCommand]:
    """Every command by its words, such as "pocket build"."""
    group = get_command(app)
    found = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {n}": c for n, c in inner.items()} if inner else {name: command}
    return found


def written() -> list[str]:
    """Every `unsee …` command that a page spells out with options or arguments."""
    found = []
    for path in PAGES:
        text = path.read_text("utf-8").replace("\\\n", "")
        found += re.findall(r"`(unsee [^`\n]+)`", text)
        found += re.findall(r"^(unsee [^\n]+)$", text, re.MULTILINE)
    return found


def test_pages_exist() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= names
    assert {"docs/architecture.md", "docs/cli.md", "docs/records.md", "docs/vkd.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_page_links_exist(page: Path) -> None:
    docs = ROOT / "docs"
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if target.startswith(REPOSITORY):
            place = ROOT / target.removeprefix(REPOSITORY)
        elif target.startswith(SITE):
            place = docs / f"{target.removeprefix(SITE).rstrip('/') or 'index'}.md"
        elif target.startswith("http"):
            continue
        else:
            place = (page.parent / target).resolve()
        made = place.is_relative_to(docs) and place.relative_to(docs).as_posix() in GENERATED
        assert place.exists() or made, target


def test_readme_tree_names_every_package() -> None:
    """The tree names only what exists, and no package is missing."""
    tree = next(b for b in blocks("README.md", "") if b.startswith("src/unsee/"))
    inside = re.findall(r"^  ([\w/]+(?:\.py)?)\s", tree, re.MULTILINE)
    for name in inside:
        assert (ROOT / "src" / "unsee" / name).exists(), name
    for name in re.findall(r"^(\w+/)\s", tree, re.MULTILINE):
        assert (ROOT / name).is_dir(), name
    folders = [p for p in (ROOT / "src" / "unsee").iterdir() if (p / "__init__.py").exists()]
    assert {f"{folder.name}/" for folder in folders} <= set(inside)


def test_cli_page_documents_every_command_and_option() -> None:
    rows = {
        match[1]: match[2]
        for match in re.finditer(
            r"^\| `unsee ([a-z]+(?: [a-z]+)?)[^`]*` \|[^|]*\|(.*)\|$",
            (ROOT / "docs" / "cli.md").read_text("utf-8"),
            re.MULTILINE,
        )
    }
    assert set(rows) == set(commands())
    for name, command in commands().items():
        shown = [p for p in command.params if not getattr(p, "hidden", False)]
        options = {o for p in shown for o in p.opts if o.startswith("--")} - {"--json"}
        assert options == set(re.findall(r"`(--[a-z-]+)`", rows[name])), name


@pytest.mark.parametrize("line", written())
def test_command_in_a_page_is_valid(line: str) -> None:
    words = shlex.split(line.replace("...", "").replace("…", ""))[1:]
    known = commands()
    name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
    # A group of commands may be named alone, without options.
    common = {o for p in get_command(app).params for o in p.opts}
    common |= {group.partition(" ")[0] for group in known} if len(words) == 1 else set()
    assert name in known or name in {"COMMAND", "--help"} | common, line
    if name in known:
        options = {o for p in known[name].params for o in p.opts} | {"--help", "-o"}
        assert {w for w in words if w.startswith("--")} <= options, line


def test_command_help_shows_an_example() -> None:
    for name, command in commands().items():
        assert f"Example: unsee {name}" in str(command.help), name


@pytest.mark.parametrize(
    ("title", "registry"),
    [
        ("Methods", METHODS),
        ("Metrics", METRICS),
        ("Attacks", ATTACKS),
        ("Benchmarks", BENCHMARKS),
        ("Families", FAMILIES),
        ("Encoders", ENCODERS),
    ],
)
def test_cli_page_lists_every_registered_name(title: str, registry: object) -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    listed = re.search(rf"{title}: ((?:`\w+`,?\s*)+)\.", text)
    assert listed is not None
    names = {row["name"] for row in registry.describe()}  # type: ignore[attr-defined]
    assert set(re.findall(r"`(\w+)`", listed[1])) == names


def test_method_has_rows_and_a_recipe() -> None:
    """One row in each of the two tables of docs/methods.md, and a recipe for pocket."""
    text = (ROOT / "docs" / "methods.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    for name in METHODS.names():
        assert rows.count(name) >= 2, name
        assert f"pocket-{name}" in shipped_recipes(), name


@pytest.mark.parametrize("path", shipped_recipes().values(), ids=lambda p: p.stem)
def test_shipped_recipe_begins_with_its_command(path: Path) -> None:
    word, read = "run", read_recipe
    if path.name.startswith("finetune-"):
        word, read = "finetune", read_finetune
    assert path.read_text("utf-8").splitlines()[0] == f"# unsee {word} {path.stem}"
    read(path, [])


def test_families_table_names_the_tests() -> None:
    text = (ROOT / "docs" / "families.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)` \|(?: yes \|){5}$", text, re.MULTILINE) == list(RECIPES)
    tests = (ROOT / "tests" / "families" / "test_family_cli.py").read_text("utf-8")
    named = re.findall(r"`(test_\w+)`(?: \||\))", text)
    assert len(named) == 6
    for name in named:
        # `folder` is the fixture that goes over all recipes.
        assert re.search(rf"^def {name}\(\s*folder: Path", tests, re.MULTILINE), name


def test_results_page_is_what_the_command_writes() -> None:
    assert (ROOT / "docs" / "results.md").read_text("utf-8") == page([])


@pytest.mark.parametrize("code", blocks("README.md", "python"))
def test_readme_code_runs(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_contributing_method_is_complete(tmp_path: Path) -> None:
    """The file in CONTRIBUTING.md can be imported, and the method trains."""
    (code,) = blocks("CONTRIBUTING.md", "python")
    (tmp_path / "theirs.py").write_text(code, "utf-8")
    trial = (
        "import theirs\n"
        "from unsee import METHODS, VLM, Trainer, TrainingSettings\n"
        "from unsee.benchmarks.pocket import Pocket\n"
        "pocket = Pocket()\n"
        "method = METHODS.get('my_ascent')(cap=4)\n"
        "data, trainer = pocket.data(), Trainer(TrainingSettings(steps=2, batch_size=4))\n"
        "result = method.unlearn(VLM.load(pocket.checkpoint('target')), data, trainer)\n"
        "assert result.history.steps == 2 and 'forget' in result.history.last\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", trial], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_readme_is_short_and_its_links_work_outside_the_repository() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    assert text.index("pip install unsee") < text.index("make demo") < text.index("make test")
    # A package index shows the page without the repository around it.
    assert all(t.startswith("https://") for t in re.findall(r"\]\(([^)]+)\)", text))


NUMBERS = (
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty twenty-one "
    "twenty-two twenty-three twenty-four twenty-five"
)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_first_page_counts_methods_and_attacks(page: str) -> None:
    words = dict(enumerate(NUMBERS.split(), 11))
    text = re.sub(r"[\s\[\]]+", " ", (ROOT / page).read_text("utf-8"))
    # VKD is named apart.
    assert re.search(rf"{words[len(METHODS.names()) - 1]} other (published )?methods", text)
    assert f"{words[len(ATTACKS.names())]} attacks" in text


def test_changelog_keeps_the_agreed_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    titles = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert titles <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE)
    version = re.search(r'__version__ = "(.+)"', (ROOT / "src/unsee/__init__.py").read_text())
    assert version is not None and f"## {version[1]}" in text
