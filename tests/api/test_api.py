"""The public API, on pocket and on a tiny checkpoint."""

from __future__ import annotations

import doctest
import json
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import unsee
from support.cli import unsee as command_line
from unsee.api import comparisons, inputs, jobs
from unsee.errors import ConfigError, RunError, UnknownNameError, WorkerFinished
from unsee.studies.comparison import Cell

SHORT: dict[str, Any] = {"steps": 2, "batch_size": 4, "lr": 1e-3}


@pytest.fixture(scope="module")
def unlearned(
    tiny_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[unsee.Run, list[tuple[str, int, int]]]:
    """A run from images alone, and the progress that it reported."""
    calls: list[tuple[str, int, int]] = []
    run = unsee.unlearn(
        tiny_folder,
        forget=photos,
        out=tmp_path_factory.mktemp("api") / "run",
        progress=lambda stage, done, total, terms: calls.append((stage, done, total)),
        **SHORT,
    )
    return run, calls


def test_unlearn_returns_the_record(
    unlearned: tuple[unsee.Run, Any], tiny_folder: Path, photos: Path
) -> None:
    run, _ = unlearned
    assert isinstance(run, unsee.Run)
    assert run.summary.kind == "unlearn"
    assert run.summary.guarantees is not None
    assert run.summary.guarantees.changed_outside_visual == 0
    assert len(run.train) == 2
    assert (run.folder / "patch").is_dir()
    assert len(repr(run)) < 300


def test_unlearn_reports_progress(unlearned: tuple[unsee.Run, Any]) -> None:
    _, calls = unlearned
    assert calls[0] == ("reading data", 0, 0)
    assert ("unlearning (vkd)", 2, 2) in calls


def test_unlearn_records_a_command_that_repeats_it(
    unlearned: tuple[unsee.Run, Any], tmp_path: Path
) -> None:
    """The recorded command, with another run folder, gives the same weights."""
    run, _ = unlearned
    words = shlex.split(run.summary.command)
    assert words[:2] == ["unsee", "run"] and words[3] == "--out"
    again = command_line(*words[1:4], tmp_path / "again", "--json")
    assert run.summary.provenance is not None
    digest = run.summary.provenance.result_weights_sha256
    assert again["provenance"]["result_weights_sha256"] == digest


def test_unlearn_takes_a_method_with_fields(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    method = unsee.METHODS.get("vkd")(erase="neutral", w_keep=5.0)
    run = unsee.unlearn(tiny_folder, forget=photos, method=method, out=tmp_path / "run", **SHORT)
    assert run.summary.method is not None
    assert run.summary.method.parameters["erase"] == "neutral"
    assert run.summary.method.parameters["w_keep"] == 5.0


def test_unlearn_logs_notes(
    tiny_folder: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unsee.unlearn(tiny_folder, forget=photos, out=tmp_path / "run", **SHORT)
    assert any("the forget set has no answers" in record.message for record in caplog.records)


def test_apply_and_verify(
    unlearned: tuple[unsee.Run, Any], tiny_folder: Path, tmp_path: Path
) -> None:
    run, _ = unlearned
    applied = unsee.apply(run.folder / "patch", tiny_folder, tmp_path / "applied")
    verification = unsee.verify(tiny_folder, tmp_path / "applied")
    assert verification.language_identical and verification.text_identical
    assert len(verification.differing) == len(applied.manifest.changed) > 0


def test_package_docstring_example_runs(
    tiny_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example in the docstring of `unsee.api`, with a tiny checkpoint and two steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "llava-7b").symlink_to(tiny_folder)
    (tmp_path / "photos").symlink_to(photos)
    lines = str(unsee.api.__doc__).splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    "))
    assert code.count("unsee.") == 2
    monkeypatch.setattr(unsee, "unlearn", partial(unsee.unlearn, **SHORT))
    exec(code, {})
    assert unsee.read_run("runs/job").summary.kind == "unlearn"
    assert unsee.verify(tiny_folder, "unlearned").language_identical


def test_evaluate_and_audit_pocket(tmp_path: Path) -> None:
    run = unsee.evaluate(
        "pocket:target",
        {"held": "pocket:forget_validation"},
        metrics=["accuracy"],
        max_new_tokens=4,
        out=tmp_path / "evaluate",
    )
    assert run.summary.measures is not None
    accuracy = run.summary.measures["held/vqa/accuracy"].value
    assert accuracy is not None and 0 <= accuracy <= 1
    quantize = unsee.ATTACKS.get("quantize")
    audited = unsee.audit(
        "pocket:target",
        forget="pocket:forget_validation",
        attacks=["relearn?steps=1", (quantize(bits=3), unsee.ATTACKS.get("jailbreak")())],
        out=tmp_path / "audit",
        fields={"relearn.share": 1.0},
    )
    assert audited.summary.attacks is not None
    assert audited.summary.attacks.relearn[0].share == 1.0
    assert "quantize?bits=3+jailbreak" in audited.summary.command


def test_run_takes_recipes_by_name_file_and_value(tiny_folder: Path, photos: Path) -> None:
    by_name = jobs.read_recipe("pocket-npo", {"steps": 3})
    assert by_name.method.name == "npo"
    assert jobs.read_recipe(by_name, {}) == by_name
    attacks = ["relearn?share=0.5", unsee.ATTACKS.get("probe")()]
    changed = jobs.read_recipe(by_name, {"attacks": attacks})
    assert [chain[0].name for chain in changed.attacks] == ["relearn", "probe"]


def test_finetune_returns_the_record(tmp_path: Path) -> None:
    recipe = {"benchmark": "pocket", "who": "target", "steps": 1, "batch_size": 2}
    record = unsee.finetune(recipe, out=tmp_path / "models", lora=4)
    assert set(record.models) == {"target"}
    content = json.loads((tmp_path / "models" / "finetune.json").read_text())
    assert content["recipe"]["lora"] == 4


def test_read_run_reads_a_folder(unlearned: tuple[unsee.Run, Any], tmp_path: Path) -> None:
    run, _ = unlearned
    assert unsee.read_run(run.folder) == run
    with pytest.raises(RunError, match="no such folder"):
        unsee.read_run(tmp_path / "none")


def test_models_in_memory_are_refused(tiny_folder: Path, photos: Path, tmp_path: Path) -> None:
    vlm: Any = unsee.VLM.load(tiny_folder)
    for call in (
        lambda: unsee.unlearn(vlm, forget=photos),
        lambda: unsee.evaluate(vlm, "pocket:forget"),
        lambda: unsee.audit(vlm, forget="pocket:forget"),
        lambda: unsee.apply(tmp_path, vlm, tmp_path),
        lambda: unsee.verify(vlm, vlm),
    ):
        with pytest.raises(ConfigError, match=r"vlm\.save\(FOLDER\)"):
            call()


def test_mistakes_raise_errors_of_the_package(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'vkd'"):
        unsee.unlearn("pocket:target", forget="pocket:forget", method="vkdd")
    with pytest.raises(ConfigError, match="nothing to evaluate on"):
        unsee.evaluate("pocket:target")
    with pytest.raises(ConfigError, match="given twice"):
        unsee.evaluate("pocket:target", ["a=pocket:forget", "a=pocket:general"])
    with pytest.raises(UnknownNameError, match="variant of vkd 'no keeep'"):
        unsee.ablate("vkd", only=["no keeep"])


def test_run_in_a_further_process_raises_worker_finished(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    """The CLI ends such a process without an error."""
    monkeypatch.setattr("unsee.runs.run.run", lambda *_, **__: None)
    with pytest.raises(WorkerFinished):
        unsee.unlearn(tiny_folder, forget=photos, out=tmp_path / "run")
    words = ("unlearn", "--model", tiny_folder, "--forget", photos, "--out", tmp_path / "run")
    assert command_line(*words) == ""


def test_compare_returns_runs_and_a_frame(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The request, the recorded command and the result; tests/studies make real comparisons."""
    requests: list[Any] = []

    def compare(request: Any, out: Path, *_: Any) -> list[Cell]:
        requests.append(request)
        return [Cell("npo w_retain=2.0", "10", 0, out / "runs" / "npo", error="no memory")]

    monkeypatch.setattr("unsee.studies.comparison.compare", compare)
    comparison = unsee.compare(
        ["npo w_retain=2.0"],
        seeds=[0],
        trials=0,
        attacks=["relearn?share=0.5", "quantize+jailbreak"],
        forget_ratio=[10],
        fields={"steps": 3},
        out=tmp_path / "compare",
    )
    (request,) = requests
    assert request.entries == {"npo w_retain=2.0": ("npo", {"w_retain": 2.0})}
    assert request.attacks == ({"share": 0.5}, {"attack": "quantize+jailbreak"})
    assert (request.benchmark, request.forget_ratios, request.seeds) == (("pocket",), ("10",), (0,))
    assert repr(comparison).endswith("1 runs, 1 failed)")
    assert [cell.error for cell in comparison.failed] == ["no memory"]
    assert list(comparison.frame()["name"]) == ["npo w_retain=2.0"]
    words = "--methods 'npo w_retain=2.0' --trials 0 --benchmark pocket --seeds 0"
    assert words in comparison.table.read_text()


@pytest.mark.parametrize("module", [jobs, comparisons, inputs], ids=lambda m: m.__name__)
def test_docstring_examples_run(module: Any) -> None:
    names = {name: getattr(module, name) for name in dir(module)}
    failed, _ = doctest.testmod(module, extraglobs=names)
    assert failed == 0
