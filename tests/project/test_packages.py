"""The Dockerfile and the conda recipe say the same as the package; neither is built here."""

from __future__ import annotations

import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
INSTRUCTIONS = {
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK"),
    *("LABEL", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}


def split_requirement(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([\w.-]+)\s*(.*)", text)
    assert match, text
    return match[1], match[2].replace(" ", "")


def test_conda_recipe_names_what_the_package_needs() -> None:
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text("utf-8"))
    conda = {"torch": "pytorch"}
    needed = dict(map(split_requirement, PROJECT["dependencies"]))
    needed = {conda.get(name, name): floor for name, floor in needed.items()}
    listed = dict(map(split_requirement, recipe["requirements"]["run"]))
    assert listed.pop("python") == ">=${{python_min}}"
    assert listed == needed
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    host = dict(map(split_requirement, recipe["requirements"]["host"]))
    assert dict(map(split_requirement, build)).items() <= host.items()
    from unsee import __version__

    assert recipe["schema_version"] == 1
    assert recipe["context"]["version"] == __version__
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["license"] == PROJECT["license"]
    scripts = [f"{name} = {target}" for name, target in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts
    assert re.fullmatch("[0-9a-f]{64}", recipe["source"]["sha256"])


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip()]
    return [(name, rest.strip()) for name, rest in pairs]


def test_dockerfile_is_made_of_known_instructions() -> None:
    found = instructions()
    assert {name for name, _ in found} <= INSTRUCTIONS
    bases = [rest.split()[0] for name, rest in found if name == "FROM"]
    # Short names: no address of a registry.
    assert bases == ["python:${PYTHON}-slim"] * 2
    arguments = dict(rest.split("=", 1) for name, rest in found if name == "ARG")
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, arguments["PYTHON"].split("."))) >= tuple(map(int, lowest.split(".")))
    assert set(arguments["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])
    for name, rest in found:
        if name == "RUN":
            shlex.split(rest)
        if name in ("CMD", "ENTRYPOINT"):
            assert isinstance(yaml.safe_load(rest), list)


def test_dockerfile_runs_the_command_as_a_user_without_rights() -> None:
    found = instructions()
    last = max(i for i, (name, _) in enumerate(found) if name == "FROM")
    users = [rest for name, rest in found[last:] if name == "USER"]
    assert users == ["unsee"]
    assert ("ENTRYPOINT", '["unsee"]') in found[last:]
    assert any("useradd" in rest for name, rest in found[last:] if name == "RUN")


def test_dockerfile_copies_what_its_ignore_file_lets_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[0] == "*"
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert any(fnmatch(source, pattern) for pattern in allowed), source
