"""Commands and recipes on published benchmarks."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support import ROOT
from support.cli import unsee
from support.encoders import make_encoder
from support.published import WRITERS, config, open_benchmark, replace_value
from unsee.benchmarks import BENCHMARKS, Scoring
from unsee.errors import ConfigError, DataError, UnknownNameError, counted
from unsee.metrics import METRICS
from unsee.metrics.names import NAMING
from unsee.recipes.evaluate import EvaluationRequest
from unsee.recipes.plan import plan
from unsee.recipes.plan_evaluation import evaluation
from unsee.recipes.sources import read_samples
from unsee.recipes.specs import Spec, parse_spec
from unsee.recipes.unlearn import make_recipe

DOCS = ROOT / "docs"


COMMANDS = [
    line
    for page in ("benchmarks.md", "metrics.md")
    # What runs a recipe is tested with the benchmark whose recipe it is.
    for line in re.findall(r"^unsee (?!run ).+$", (DOCS / page).read_text("utf-8"), re.MULTILINE)
]


def test_evaluation_opens_a_benchmark_once(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, opened_at = BENCHMARKS.get("fiubench"), []
    known = kind.open.__func__  # type: ignore[attr-defined]

    def counted(cls: Any, *place: Any) -> Any:
        opened_at.append(place)
        return known(cls, *place)

    monkeypatch.setattr(kind, "open", classmethod(counted))
    place = places["fiubench"]
    paths = {s: f"fiubench:{s}@{place}" for s in ("forget", "retain", "train_retain")}
    request = EvaluationRequest(model="nowhere", splits=paths, metrics=("accuracy",))
    job = evaluation(request, "x")
    assert set(job.splits) == set(paths)
    assert len(opened_at) == 1


def test_data_check_counts_repeated_questions(copied: dict[str, Path]) -> None:
    path = copied["safeeraser"] / "all_train.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[0]]))
    output = unsee("data", "check", f"safeeraser@{copied['safeeraser']}")
    assert "forget: 1 samples ask what another asks" in output


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("pocket:forget", Spec("pocket", "forget")),
        ("pocket:forget@a/b", Spec("pocket", "forget", "a/b")),
        ("mllmu:test@D?ratio=5&shots=0", Spec("mllmu", "test", "D", "5", 0)),
        ("mllmu@D?ratio=15", Spec("mllmu", "", "D", "15")),
        ("clear?ratio=1", Spec("clear", "", None, "1")),
        ("photos/anna", None),
        ("C:/photos", None),
    ],
)
def test_parse_spec_reads_all_forms(text: str, spec: Spec | None) -> None:
    assert parse_spec(text) == spec


def test_read_samples_refuses_wrong_specs(places: dict[str, Path]) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'mllmu'"):
        read_samples("mlmu:forget")
    with pytest.raises(ConfigError, match="Did you mean 'ratio'"):
        read_samples("mllmu:forget?ration=5")
    with pytest.raises(ConfigError, match="shots=x is no number"):
        read_samples("mllmu:forget?shots=x")
    with pytest.raises(ConfigError, match="ratio=7 is not published. Allowed: 5, 10, 15"):
        read_samples(f"mllmu:forget@{places['mllmu']}?ratio=7")
    with pytest.raises(ConfigError, match="no few-shot prompts"):
        read_samples(f"umu:forget@{places['umu']}?shots=1")
    with pytest.raises(DataError, match="names no split"):
        read_samples(f"umu@{places['umu']}")
    with pytest.raises(UnknownNameError, match="unknown umu split 'forgot'"):
        read_samples(f"umu:forgot@{places['umu']}")


@pytest.mark.parametrize("name", WRITERS)
def test_data_check_counts_samples_of_every_split(name: str, places: dict[str, Path]) -> None:
    found = unsee("data", "check", f"{name}@{places[name]}", "--json")
    assert found["problems"] == []
    benchmark = open_benchmark(places, name)
    assert set(found["splits"]) == {*benchmark.splits, "train_forget", "train_retain"}
    for split, counts in found["splits"].items():
        assert counts["samples"] == sum(counts["tasks"].values()) == len(benchmark.load(split))
    output = unsee("data", "check", f"{name}:forget@{places[name]}")
    assert output.startswith(f"forget: {counted(len(benchmark.load('forget')), 'sample')} (")


def test_data_check_lists_all_problems_and_fails(
    copied: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from unsee.recipes.data_check import inspect

    path = config(copied["mllmu"], "ft_Data")
    rows = pq.read_table(path).to_pylist()
    replace_value(path, 1, "image", rows[0]["image"])
    replace_value(config(copied["mllmu"], "Retain_Set"), 0, "image", {"bytes": b"no", "path": "x"})
    found = inspect(f"mllmu@{copied['mllmu']}")
    assert "celebrity: " in found["problems"][0]
    assert "row 1: field 'image' is no picture" in found["problems"][0]
    assert "train_forget and train_retain share 1 picture," in found["problems"][1]
    assert found["splits"]["forget"]["samples"] == 6
    unsee("data", "check", f"mllmu@{copied['mllmu']}", code=2)


@pytest.mark.parametrize("name", WRITERS)
def test_run_of_a_recipe_works_on_each_benchmark(
    name: str, places: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    recipe, out = tmp_path / "job.yaml", tmp_path / "run"
    recipe.write_text(
        f"benchmark: {name}\ndata: {places[name]}\nmodel: {tiny_folder}\nmethod: vkd\n"
        f"reference: {tiny_folder}\n"
        "set: {steps: 1, batch_size: 2}\nattacks: [{share: 1.0, steps: 1, batch_size: 2}]\n"
    )
    checked = unsee("run", recipe, "--dry-run", "--json")
    assert checked["splits"]["forget_holdout"] > 0
    summary = unsee("run", recipe, "--out", out, "--json")
    assert summary["benchmark"]["name"] == name
    assert summary["benchmark"]["location"] == str(places[name])
    assert summary["benchmark"]["samples"] == checked["splits"]
    attack = summary["attacks"]["relearn"][0]
    assert attack["curves"]["unlearned"][-1]["step"] == 1
    how = BENCHMARKS.get(name).relearning.get("forget_holdout", Scoring())
    measure = f"forget_holdout/vqa/{how.metric}"
    assert (attack["measure"], attack["longest"]["forget_holdout"]) == (
        measure,
        how.max_new_tokens,
    )
    if name == "salmubench":
        # Nobody is named on what is to be kept.
        assert summary["method"]["parameters"]["population"] == "kept"
    # Before the attack the curve says what the evaluation says.
    start = attack["curves"]["unlearned"][0]["value"]
    assert start == summary["measures"][measure]["value"]
    assert summary["measures"][measure]["better"] == "lower"
    assert summary["gallery"]
    assert (out / "report.html").read_text("utf-8").count("data:image/png") >= 2
    assert set(summary["forgetting"]) == set(BENCHMARKS.get(name).forgetting) & set(
        summary["benchmark"]["samples"]
    )
    declared = {
        f"{m.split}/{m.modality}/{m.metric}": m.better for m in BENCHMARKS.get(name).measures
    }
    shared = declared.keys() & summary["measures"].keys()
    assert shared
    assert all(summary["measures"][key]["better"] == declared[key] for key in shared)
    if name == "mllmu":
        letters = summary["measures"]["forget/vqa/accuracy"]
        # The random weights' answer to the one choice may be empty, and so unscored.
        assert letters["n"] + letters["n_unscored"] == 1


@pytest.mark.parametrize("name", WRITERS)
def test_evaluate_works_on_each_benchmark(
    name: str, places: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    summary = unsee(
        "evaluate",
        "--model",
        tiny_folder,
        "--data",
        f"{name}:forget@{places[name]}",
        "--reference",
        tiny_folder,
        "--out",
        tmp_path / "run",
        "--json",
    )
    assert summary["benchmark"]["name"] == name
    assert any(key.startswith("forget/vqa/") for key in summary["measures"])


def test_evaluate_scores_by_published_or_own_rules(
    places: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    words = ("evaluate", "--model", tiny_folder, "--data", f"umu:forget@{places['umu']}?ratio=5")
    words = (*words, "--metrics", "accuracy,cloze", "--max-new-tokens", 2)
    published = unsee(*words, "--out", tmp_path / "published", "--json")
    rules = {"accuracy": "umu", "cloze": "mllmu", "real/accuracy": "umu_closest"}
    assert published["benchmark"]["rules"] == rules
    own = unsee(*words, "--rules", "own", "--out", tmp_path / "own", "--json")
    assert "rules" not in own["benchmark"]
    assert "--rules own" in own["command"]
    output = unsee(*words, "--rules", "mine", "--out", tmp_path / "no", code=2)
    assert "rules" in output and "own" in output
    assert not (tmp_path / "no").exists()


def test_recipe_with_own_rules_scores_by_them(places: dict[str, Path], tiny_folder: Path) -> None:
    values = {"benchmark": "umu", "data": str(places["umu"]), "model": str(tiny_folder)}
    assert plan(make_recipe(values), "run", "x")[0].rules["accuracy"] == "umu"
    recipe = make_recipe({**values, "rules": "own"})
    assert plan(recipe, "run", "x")[0].rules == {}
    # The identity of recipes without the option is that of earlier versions.
    assert "rules" not in make_recipe(values).identity()
    assert "rules: own" in recipe.identity()


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_docs_run(
    line: str, places: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    models = {"MODEL": tiny_folder}
    if " CLIP " in line:
        models["CLIP"] = make_encoder("clip", tmp_path / "clip")
    words = [
        re.sub(r"^(\w+)(.*)@DIR", lambda found: f"{found[1]}{found[2]}@{places[found[1]]}", word)
        for word in shlex.split(line)[1:]
    ]
    words = [re.sub(r"^steps=.*", "steps=1", word) for word in words]
    if words[0] != "data":
        words += ["--out", str(tmp_path / "run")]
    found = unsee(*(models.get(w, w) for w in words), "--json")
    if "--metrics" in words:
        asked = words[words.index("--metrics") + 1].split(",")
        measured = {key.rpartition("/")[2] for key in found["measures"]}
        # Naming is measured wherever answers are generated and names are known.
        assert measured - (set(NAMING) - set(asked)) == set(asked)


def test_docs_have_a_command_for_every_benchmark_and_metric() -> None:
    assert {f"unsee data check {name}@" for name in WRITERS} == {
        f"{line.replace(chr(39), '').partition('@')[0]}@" for line in COMMANDS if "check" in line
    }
    named = {name for line in COMMANDS for name in re.findall(r"--metrics (\S+)", line)}
    assert {name for some in named for name in some.split(",")} == set(METRICS.names())


def test_run_refuses_a_recipe_without_model_or_known_benchmark(
    places: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "job.yaml"
    recipe.write_text(f"benchmark: umu\ndata: {places['umu']}\nforget_ratio: 10\n")
    assert "which model? umu comes with none" in unsee("run", recipe, "--dry-run", code=2)
    recipe.write_text("benchmark: umuu\n")
    assert "Did you mean 'umu'" in unsee("run", recipe, "--dry-run", code=2)
