"""What a newcomer gets: a light import, a pinned API, and a tidy tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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
def test_importing_loads_no_torch(code: str) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'pandas', 'sklearn'} & set(sys.modules)"
    done = run("-c", f"import sys\n{code}\nprint({heavy} or '')")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("arguments", [["-c", "import unsee"], ["-m", "unsee", "--help"]])
def test_starting_is_quick(arguments: list[str]) -> None:
    seconds = []
    for _ in range(5):
        before = os.times()
        assert run(*arguments).returncode == 0
        after = os.times()
        # Processor time, for the machine may be busy; one thread starts up, so it is no less than
        # what the clock shows on an idle one.
        used = after.children_user + after.children_system
        seconds.append(used - before.children_user - before.children_system)
    assert min(seconds) < 0.5, seconds


def test_the_public_names_are_pinned() -> None:
    import unsee

    assert unsee.__all__ == [
        "ATTACKS",
        "BENCHMARKS",
        "FAMILIES",
        "METHODS",
        "METRICS",
        "VLM",
        "Batch",
        "Data",
        "Estimate",
        "Method",
        "Picture",
        "Sample",
        "Trainer",
        "TrainingResult",
        "TrainingSettings",
        "UnseeError",
        "__version__",
        "apply_patch",
        "write_patch",
    ]
    for name in unsee.__all__:
        assert getattr(unsee, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unsee.nothing  # type: ignore[attr-defined]


def test_quirks_of_models_live_in_families_only() -> None:
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


def test_no_module_is_long() -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in MODULES}
    long = {str(p.relative_to(SOURCE)): n for p, n in lines.items() if n > 600}
    assert long == {}


def test_the_repository_names_no_machine() -> None:
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


def test_the_wheel_holds_what_is_not_python(tmp_path: Path) -> None:
    done = run("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "unsee/py.typed",
        "unsee/report/page.html.j2",
        "unsee/report/style.css",
        "unsee/benchmarks/pocket/artefacts/build.json",
        "unsee/benchmarks/pocket/artefacts/target/model.safetensors",
    ):
        assert wanted in names
