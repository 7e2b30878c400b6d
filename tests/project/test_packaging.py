"""Import time, public names, source files, and the built distribution."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from support import ROOT

SOURCE = ROOT / "src" / "unsee"
MODULES = sorted(SOURCE.rglob("*.py"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.parametrize("code", ["import unsee", "import unsee.cli"])
def test_import_loads_no_torch(code: str) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'pandas', 'sklearn'} & set(sys.modules)"
    done = run("-c", f"import sys\n{code}\nprint({heavy} or '')")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("arguments", [["-c", "import unsee"], ["-m", "unsee", "--help"]])
def test_start_is_quick(arguments: list[str]) -> None:
    seconds = []
    for _ in range(5):
        before = os.times()
        assert run(*arguments).returncode == 0
        after = os.times()
        # Processor time, for the machine may be busy; one thread starts up, so it is no less than
        # what the clock shows on an idle one.
        used = after.children_user + after.children_system
        seconds.append(used - before.children_user - before.children_system)
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5, seconds


def test_public_names_are_pinned() -> None:
    import unsee

    assert unsee.__all__ == [
        "ATTACKS",
        "BENCHMARKS",
        "FAMILIES",
        "METHODS",
        "METRICS",
        "VLM",
        "Batch",
        "Callback",
        "Comparison",
        "Data",
        "Estimate",
        "Ledger",
        "MetaEvaluation",
        "Method",
        "Picture",
        "Run",
        "Sample",
        "Trainer",
        "TrainingResult",
        "TrainingSettings",
        "UnseeError",
        "__version__",
        "ablate",
        "apply",
        "apply_patch",
        "audit",
        "compare",
        "compare_records",
        "create_ledger",
        "demo",
        "doctor",
        "evaluate",
        "export",
        "finetune",
        "history",
        "list_runs",
        "load_patch",
        "meta_evaluate",
        "open_ledger",
        "purge",
        "push",
        "read_run",
        "run",
        "serve",
        "undo",
        "unlearn",
        "verify",
        "write_patch",
    ]
    for name in unsee.__all__:
        assert getattr(unsee, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unsee.nothing  # type: ignore[attr-defined]


def test_modules_outside_families_name_no_pretrained_model() -> None:
    # pocket makes a LLaVA checkpoint, so it names one.
    quirks = re.compile(
        r"model_type\s*(==|in\b)|llava-hf|Qwen|vision_tower|multi_modal_projector|language_model\."
    )
    strays = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in MODULES
        if not {"families", "pocket", "pocket_builder"} & set(path.parts)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if quirks.search(line) and "such as" not in line
    ]
    assert strays == []


def test_modules_have_at_most_600_lines() -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in MODULES}
    long = {str(p.relative_to(SOURCE)): n for p, n in lines.items() if n > 600}
    assert long == {}


def test_package_root_has_at_most_8_modules() -> None:
    assert len(list(SOURCE.glob("*.py"))) <= 8


def test_repository_files_contain_no_machine_paths() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    private = re.compile("/" + r"(work|root|home/\w+)/")
    strays = [
        name
        for name in listed
        if (ROOT / name).suffix in {".py", ".md", ".toml", ".yaml", ".json", ".lock", ""}
        and (ROOT / name).is_file()
        and private.search((ROOT / name).read_text("utf-8", errors="ignore"))
    ]
    assert strays == []


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel, built as `make dist` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    done = run("-m", "build", "--no-isolation", "--outdir", str(folder), ".")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as pip would unpack them."""
    folder = tmp_path_factory.mktemp("site-packages")
    (wheel,) = dist.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_dist_passes_a_strict_twine_check(dist: Path) -> None:
    files = sorted(str(path) for path in dist.iterdir())
    assert [Path(name).suffix for name in files] == [".whl", ".gz"]
    done = run("-m", "twine", "check", "--strict", *files)
    assert done.returncode == 0, done.stdout


def test_wheel_holds_every_file_of_the_package(installed: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "src/unsee"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    missing = [name for name in listed if not (installed / Path(name).relative_to("src")).exists()]
    assert missing == []


def test_wheel_runs_a_shipped_recipe(installed: Path, tmp_path: Path) -> None:
    # Coverage would count the wheel's modules as a second copy of the source.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment = {**inherited, "PYTHONPATH": str(installed)}
    where = [sys.executable, "-c", "import unsee; print(unsee.__file__)"]
    told = subprocess.run(
        where, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert Path(told.stdout.strip()).is_relative_to(installed)
    done = subprocess.run(
        [sys.executable, "-m", "unsee", "run", "pocket-vkd", "--dry-run", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["method"] == "vkd"


def test_extras_named_in_errors_exist() -> None:
    """What an error tells people to install is an extra of the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    named = {
        extra
        for path in MODULES
        for group in re.findall(r"unsee\[([\w,-]+)\]", path.read_text("utf-8"))
        for extra in group.split(",")
    }
    # `require_extra("sklearn", "probe", ...)`, and `requires` of a metric or an attack.
    call = r"requir(?:e_extra|es:[^\n]+= )\(\"(\w+)\", \"([\w-]+)\""
    required = {pair for path in MODULES for pair in re.findall(call, path.read_text("utf-8"))}
    assert {extra for _, extra in required} >= {"compare", "probe", "bleu", "pandas"}
    assert named | {extra for _, extra in required} <= extras
    for module, extra in required:
        distribution = {"sklearn": "scikit-learn"}.get(module, module)
        listed = project["optional-dependencies"][extra]
        assert any(line.startswith(distribution) for line in listed), module


def test_python_floor_is_the_same_everywhere() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    floor = settings["project"]["requires-python"].removeprefix(">=")
    assert settings["tool"]["mypy"]["python_version"] == floor
    major, minor = floor.split(".")
    assert f"sys.version_info >= ({major}, {minor})" in (ROOT / "Makefile").read_text("utf-8")
    assert f"Python {floor} or newer" in (ROOT / "README.md").read_text("utf-8")
    named = [line for line in settings["project"]["classifiers"] if ":: 3." in line]
    assert named[0].endswith(f":: {floor}")
