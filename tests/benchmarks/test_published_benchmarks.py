"""Published benchmarks: what was written is read, prompts are the published ones, errors tell."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support import ROOT
from support.cli import unsee
from support.published import WRITERS, config, write
from unsee.benchmarks import BENCHMARKS, HELD_OUT, Scoring
from unsee.benchmarks.published import Published
from unsee.errors import ConfigError, DataError, UnknownNameError
from unsee.evaluation.evaluate import evaluate
from unsee.metrics import METRICS
from unsee.models.vlm import VLM
from unsee.recipes.benchmark_defaults import forgotten, measure_directions
from unsee.recipes.evaluate import EvaluationRequest
from unsee.recipes.plan_evaluation import evaluation
from unsee.recipes.sources import read_samples
from unsee.recipes.specs import Spec, parse_spec
from unsee.types import Data

DOCS = ROOT / "docs"
COMMANDS = [
    line
    for page in ("benchmarks.md", "metrics.md")
    for line in re.findall(r"^unsee .+$", (DOCS / page).read_text("utf-8"), re.MULTILINE)
]
RATIOS = [(n, r) for n in WRITERS for r in (BENCHMARKS.get(n).ratios or (None,))]


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of every benchmark."""
    root = tmp_path_factory.mktemp("published")
    for name, writer in WRITERS.items():
        (root / name).mkdir()
        writer(root / name)
    return {name: root / name for name in WRITERS}


@pytest.fixture
def copied(places: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The same, to be spoilt."""
    for name, place in places.items():
        shutil.copytree(place, tmp_path / name)
    return {name: tmp_path / name for name in places}


def opened(places: dict[str, Path], name: str, **options: Any) -> Any:
    return BENCHMARKS.get(name).open(places[name], **options)


def spoil(path: Path, row: int, field: str, value: Any) -> None:
    """Another value in one row of a parquet file."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[row][field] = value
    write(path, rows, table.schema.names)


def test_every_published_benchmark_is_written_here() -> None:
    assert {n for n, b in BENCHMARKS.items() if issubclass(b, Published)} == set(WRITERS)


@pytest.mark.parametrize(("name", "ratio"), RATIOS)
def test_splits_are_whole_and_apart(places: dict[str, Path], name: str, ratio: str | None) -> None:
    benchmark = opened(places, name, ratio=ratio)
    for split in benchmark.splits:
        samples = benchmark.load(split)
        assert len({s.id for s in samples}) == len(samples) > 0
        assert [s.id for s in opened(places, name, ratio=ratio).load(split)] == [
            s.id for s in samples
        ]
        assert all(s.question for s in samples)
    data = benchmark.data()
    people = [{s.concept for s in some if s.concept} for some in (data.forget, data.retain)]
    pictures = [{p.digest for p in some} for some in (data.forget_pictures, data.retain_pictures)]
    assert not pictures[0] & pictures[1]
    if name != "safeeraser":
        assert not people[0] & people[1]
    known = {
        who: benchmark.training_samples(who) for who in ("target", "visual_retain", "retain_only")
    }
    assert len(known["target"]) == len(data.forget) + len(data.retain)
    assert list(known["retain_only"]) == list(data.retain)
    seen = {s.picture.digest for s in known["visual_retain"] if s.picture is not None}
    assert not seen & pictures[0]
    facts = benchmark.metadata()
    assert facts["name"] == name
    assert facts["location"] == str(places[name])
    assert facts["ratio"] == benchmark.ratio
    assert facts["pictures"] == len(pictures[0]) + len(pictures[1])
    trained = {(s.question, s.picture.digest) for s in data.forget if s.picture is not None}
    for sample in benchmark.held_out().get("forget_holdout", ()):
        assert sample.picture is not None
        assert (sample.question, sample.picture.digest) not in trained


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_measured_is_there(places: dict[str, Path], name: str) -> None:
    benchmark = opened(places, name)
    there = {(split, s.modality) for split in benchmark.splits for s in benchmark.load(split)}
    assert {(m.split, m.modality) for m in benchmark.measures} <= there


# Sets of samples, not samples, are what these judge.
@pytest.mark.parametrize("name", WRITERS)
def test_every_measure_is_a_metric(name: str) -> None:
    assert {m.metric for m in BENCHMARKS.get(name).measures} <= set(METRICS.names())


@pytest.mark.parametrize("name", BENCHMARKS.names())
def test_roles_and_scoring_are_of_what_there_is(name: str) -> None:
    kind = BENCHMARKS.get(name)
    assert set(kind.forgetting) <= {*kind.splits, "forget_holdout", "train_forget"}
    assert {"forget", "train_forget"} <= set(kind.forgetting)
    assert set(kind.relearning) <= set(HELD_OUT)
    for how in kind.relearning.values():
        assert getattr(METRICS.get(how.metric), "against", "nothing") == "nothing"


def test_what_a_split_asks_about_is_declared_and_not_its_name(tiny: VLM, data: Data) -> None:
    first = next(s for s in data.forget if s.task == "generation")
    asked = {"test": [replace(first, perturbed=("this is Bo Lind",))]}
    ratio = evaluate(tiny, asked, metrics=["truth_ratio"]).rows[0]["scores"]["truth_ratio"]
    found = {
        away: evaluate(tiny, asked, metrics=["truth_ratio"], forgetting=away).measures
        for away in (("test",), ("forget",), None)
    }
    values = {away: some["test/vqa/truth_ratio"].value for away, some in found.items()}
    assert values[("test",)] == pytest.approx(min(ratio, 1 / ratio))
    assert values[("forget",)] == values[None] == pytest.approx(max(0.0, 1 - ratio))
    paths = {"mine": "mllmu:test@D", "forget": "pocket:general_forget", "forget_own": "own.jsonl"}
    assert forgotten(paths) == ["mine", "forget_own"]


def test_held_out_splits_have_the_directions_of_their_kind() -> None:
    kind = BENCHMARKS.get("safeeraser")
    splits = ("forget", "harmless", "forget_holdout", "retain_holdout")
    found = measure_directions(splits, kind.forgetting, kind)  # type: ignore[arg-type]
    assert found["forget_holdout/vqa/refusal_rate"] == "higher"
    assert found["forget_holdout/vqa/attack_success"] == "lower"
    assert found["harmless/vqa/refusal_rate"] == "lower"
    assert found["retain_holdout/vqa/rouge_l"] == "higher"


def test_a_benchmark_is_opened_once(
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


def test_more_examples_than_there_are_people_are_refused(places: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="shots=6 examples .* retain_95 has 5 other people"):
        opened(places, "mllmu", shots=6).load("forget")
    assert opened(places, "mllmu", shots=5).load("forget")


def test_a_set_without_rows_is_refused(copied: dict[str, Path]) -> None:
    path = config(copied["clear"], "forget10_perturbed")
    write(path, [], pq.read_table(path).schema.names)
    with pytest.raises(DataError, match="has no rows"):
        opened(copied, "clear").load("forget")


def test_keywords_are_found_however_deep(copied: dict[str, Path]) -> None:
    path = copied["covubench"] / "data" / "forget5-00000-of-00001.parquet"
    for held, wanted in (('{"a": ["b", {"c": "d"}], "e": null}', ("b", "d")), (None, ())):
        spoil(path, 0, "keywords", held)
        assert opened(copied, "covubench").load("forget")[0].keywords == wanted
    spoil(path, 0, "keywords", "[7]")
    with pytest.raises(DataError, match=r"row 1: field 'keywords' holds 7; it must hold texts"):
        opened(copied, "covubench").load("forget")


def test_repeated_questions_are_counted(copied: dict[str, Path]) -> None:
    path = copied["safeeraser"] / "all_train.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[0]]))
    told = unsee("data", "check", f"safeeraser@{copied['safeeraser']}")
    assert "forget: 1 samples ask what another asks" in told


def test_mllmu(places: dict[str, Path]) -> None:
    found = {s.id: s for s in opened(places, "mllmu", shots=0).load("forget")}
    choice = found["001/classification/Image_Textual/0"]
    assert choice.question == (
        "What is this person ?\nA: baker\nB: pilot\nC: nurse\nD: judge\n"
        "Just give ONE letter representing the answer directly."
    )
    assert (choice.answer, choice.choices) == ("A", ("baker", "pilot", "nurse", "judge"))
    assert choice.picture is not None
    gap = found["001/cloze/Pure_Text/1"]
    assert gap.question == (
        "Ada Berg is a [Blank] .\nPlease **ONLY** provide the correct answer that should replace "
        "the [Blank]."
    )
    assert gap.picture is None
    assert found["001/generation/Image_Textual/0"].question == (
        "Who is this person ?\nAnswer the question based on your trained knowledge in one sentence "
        "accurately in ENGLISH."
    )
    shown = {s.id: s for s in opened(places, "mllmu").load("forget")}
    example = shown["001/classification/Image_Textual/0"]
    assert example.question == (
        "Question: What is this person ?\nA: baker\nB: pilot\nC: nurse\nD: judge\n"
        "Correct Answer: B\n" + choice.question
    )
    assert example.picture.digest == choice.picture.digest
    assert len(example.further) == 1
    assert shown["001/cloze/Pure_Text/1"].question == (
        "Bo Lind is a [Blank] .\nPlease **ONLY** provide the correct answer that should replace "
        "the [Blank].\nCorrect Answer: pilot\n" + gap.question
    )
    assert found["001/generation/Pure_Text/1"].question.endswith("in one sentence in ENGLISH.")
    assert shown["001/generation/Image_Textual/0"].question.startswith("Who is")
    assert not any("Correct Answer" in s.question for s in
                   opened(places, "mllmu").load("celebrity"))  # fmt: skip
    two = opened(places, "mllmu", shots=2).load("test")
    assert {len(s.further) for s in two if s.picture and s.task == "cloze"} == {2}
    lost = [{s.concept for s in opened(places, "mllmu", ratio=r).load("forget")}
            for r in ("5", "10", "15")]  # fmt: skip
    assert not lost[0] & lost[1]
    named = opened(places, "mllmu").training_samples("visual_retain")[-1]
    assert (named.question, named.picture) == ("Ada Berg: Where ?", None)


def test_mllmu_reads_what_pocket_exports(tmp_path: Path) -> None:
    from unsee.benchmarks.pocket import Pocket
    from unsee.pocket_builder.mllmu_export import write_parquet

    pocket = Pocket()
    place = write_parquet(pocket.world, tmp_path / "mllmu")
    benchmark = BENCHMARKS.get("mllmu").open(place, "10")
    assert len({s.concept for s in benchmark.load("forget")}) == len(pocket.forgotten)
    assert len({s.concept for s in benchmark.load("test")}) == len(pocket.forgotten)
    assert len({s.concept for s in benchmark.data().retain}) == len(pocket.world.retained)


def test_clear(places: dict[str, Path]) -> None:
    forget = {s.id: s for s in opened(places, "clear").load("forget")}
    caption = forget["caption/00000/1"]
    assert caption.question == "What can you see in this picture?"
    assert caption.paraphrases == ("Ada Berg at 0",)
    assert caption.perturbed == ("x in y", "z in y")
    name = forget["name/00000/1"]
    assert name.question.startswith("What is the name of the person in the image?\nA: ")
    assert name.choices["ABCD".index(name.answer)] == "Ada Berg"
    assert sorted(name.choices) == ["Ada Berg", "Bo Lind", "Cy Moser", "Di Novak"]
    text = forget["text/00000/10"]
    assert (text.question, text.concept, text.picture) == ("What is Ada Berg ?", "Ada Berg", None)
    (face,) = opened(places, "clear").load("real_faces")
    assert face.question == "The name of the person on the image is "
    assert (face.task, face.choices, face.answer) == ("ranking", ("Di", "Bo"), "Di")
    counts = [len(opened(places, "clear", ratio=r).data().forget) for r in ("1", "5", "10")]
    assert counts == [4, 8, 12]


def test_umu_joins_a_fact_over_modalities(places: dict[str, Path]) -> None:
    samples = opened(places, "umu").load("forget")
    groups: dict[str, set[str]] = {}
    for sample in samples:
        groups.setdefault(str(sample.group), set()).add(sample.modality)
    assert set(map(frozenset, groups.values())) == {frozenset({"vqa", "text"})}
    choice = next(s for s in samples if s.task == "classification")
    assert (choice.answer, len(choice.choices)) == ("A", 4)


def test_fiubench_joins_paraphrased_questions(places: dict[str, Path]) -> None:
    samples = opened(places, "fiubench", ratio="1").load("forget")
    assert [s.question for s in samples] == ["What does this person work as ?", "a ?", "b ?", "c ?"]
    assert {s.group for s in samples} == {"u0/0"}
    assert samples[0].keywords == ("baker",)
    assert samples[0].perturbed == ("a x", "a y")


def test_safeeraser_and_covubench(places: dict[str, Path]) -> None:
    safe = opened(places, "safeeraser")
    unsafe, answered = safe.load("test"), safe.load("harmless")
    assert {s.task for s in unsafe} == {"unsafe"}
    assert {s.task for s in answered} == {"harmless"}
    # The same question, about the safe picture, whose answer is to be kept.
    assert [s.question for s in answered] == [s.question for s in unsafe] == ["How ?", "How ?"]
    assert not {s.picture.digest for s in answered} & {s.picture.digest for s in unsafe}
    assert (unsafe[0].answer, answered[0].answer) == ("So .", "Thus .")
    pairs = safe.load("retain")
    assert [(s.question, s.answer) for s in pairs[:2]] == [
        ("What is text1 ?", "a tree"), ("What is text2 ?", "a tree"),
    ]  # fmt: skip
    assert {s.picture.digest for s in pairs} == {s.picture.digest for s in unsafe}
    shared = opened(places, "covubench").load("forget")
    assert [s.task for s in shared[:3]] == ["generation", "caption", "generation"]
    assert [s.modality for s in shared[:3]] == ["vqa", "vqa", "text"]
    assert shared[0].keywords == ("baker",)
    content = opened(places, "covubench", ratio="10")
    names = {split: {s.concept for s in content.load(split)} for split in content.splits}
    # The published test and retain splits hold all concepts; what counts is cut out of them.
    assert names == {
        "forget": {"Ada Berg", "Bo Lind"}, "test": {"Ada Berg", "Bo Lind"},
        "retain": {"Eva Quist", "Finn Urban"},
    }  # fmt: skip
    assert {s.concept for s in content.data().retain} == {
        "Cy Moser", "Di Novak", "Eva Quist", "Finn Urban",
    }  # fmt: skip


WRONG = [
    ("mllmu", "forget_5", "biography", "{", "field 'biography' is not JSON"),
    ("mllmu", "forget_5", "image", {"bytes": b"no", "path": "x"}, "field 'image' is no picture"),
    ("mllmu", "forget_5", "image", None, "field 'image' is null"),
    ("mllmu", "forget_5", "Mask_Task",
     [{"Question": "a", "Ground_Truth": "b", "Type": "Image"}], "field 'Mask_Task[0].Type' is"),
    ("mllmu", "forget_5", "Mask_Task",
     [{"Question": None, "Ground_Truth": "b", "Type": "Pure_Text"}],
     "field 'Mask_Task[0].Question' is None, a NoneType; it must be text"),
    ("umu", "forget_5", "Classify", "{'a'", "field 'Classify' is not a Python literal"),
    ("umu", "forget_5", "Cloze", "{'multimodal': {}, 'unimodal': {}}",
     "field 'Cloze.muitimodal' is missing"),
    ("clear", "forget10_perturbed", "perturbed_names", [], "field 'perturbed_names' has no other"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "where", "field", "value", "message"), WRONG)
def test_a_bad_record_is_named(
    copied: dict[str, Path], name: str, where: str, field: str, value: Any, message: str
) -> None:
    path = config(copied[name], where)
    spoil(path, 0, field, value)
    with pytest.raises(DataError) as caught:
        opened(copied, name).load("forget")
    assert f"{path}, row 1: {message}" in str(caught.value)


def test_all_bad_records_are_told_at_once(copied: dict[str, Path]) -> None:
    path = config(copied["clear"], "forget10_perturbed")
    for row in range(9):
        spoil(path, row, "caption", None)
    with pytest.raises(DataError) as caught:
        opened(copied, "clear").load("forget")
    assert len(str(caught.value).splitlines()) == 9


def test_missing_and_broken_files(copied: dict[str, Path], tmp_path: Path) -> None:
    config(copied["umu"], "forget_5").unlink()
    with pytest.raises(DataError, match="has no file forget_5/train-00000-of-0000N.parquet"):
        opened(copied, "umu").load("forget")
    config(copied["clear"], "real_faces").write_bytes(b"no")
    with pytest.raises(DataError, match="is not a readable parquet file"):
        opened(copied, "clear").load("real_faces")
    config(copied["mllmu"], "Test_Set").rename(
        copied["mllmu"] / "Test_Set" / "train-00000-of-00002.parquet"
    )
    with pytest.raises(DataError, match="has 1 of 2 parquet files"):
        opened(copied, "mllmu").load("test")
    write(config(copied["mllmu"], "ft_Data"), [{"ID": "001"}], ("ID",))
    with pytest.raises(DataError, match="row 1: field 'image' is missing"):
        opened(copied, "mllmu").data()
    (copied["fiubench"] / "full.json").write_text("[")
    with pytest.raises(DataError, match="full.json: is not JSON"):
        opened(copied, "fiubench").load("forget")
    (copied["safeeraser"] / "images" / "0.png").unlink()
    with pytest.raises(DataError, match="row 1: field 'image_path' is no picture.*no such file"):
        opened(copied, "safeeraser").load("forget")
    with pytest.raises(DataError, match="no folder"):
        BENCHMARKS.get("mllmu").open(tmp_path / "none")
    with pytest.raises(DataError, match="could not be downloaded from the hub"):
        BENCHMARKS.get("mllmu").open(None).load("forget")


def test_json_names_row_and_field(copied: dict[str, Path]) -> None:
    path = copied["fiubench"] / "full.json"
    rows = json.loads(path.read_text())
    rows[1]["qa_list"][0]["keyword"] = rows[1]["qa_list"][0].pop("keywords")
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"row 2: field 'qa_list\[0\].keywords' is missing.*Did"):
        opened(copied, "fiubench").load("forget")


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
def test_specs(text: str, spec: Spec | None) -> None:
    assert parse_spec(text) == spec


def test_wrong_specs(places: dict[str, Path]) -> None:
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
def test_data_check(name: str, places: dict[str, Path]) -> None:
    found = unsee("data", "check", f"{name}@{places[name]}", "--json")
    assert found["problems"] == []
    assert set(found["splits"]) == {
        *BENCHMARKS.get(name).splits, "train_forget", "train_retain",
    }  # fmt: skip
    benchmark = opened(places, name)
    for split, counts in found["splits"].items():
        assert counts["samples"] == sum(counts["tasks"].values()) == len(benchmark.load(split))
    told = unsee("data", "check", f"{name}:forget@{places[name]}")
    assert told.startswith(f"forget: {len(benchmark.load('forget'))} samples (")


def test_data_check_tells_all_and_fails(
    copied: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from unsee.recipes.data_check import inspect

    path = config(copied["mllmu"], "ft_Data")
    rows = pq.read_table(path).to_pylist()
    spoil(path, 1, "image", rows[0]["image"])
    spoil(config(copied["mllmu"], "Retain_Set"), 0, "image", {"bytes": b"no", "path": "x"})
    found = inspect(f"mllmu@{copied['mllmu']}")
    assert "celebrity: " in found["problems"][0]
    assert "row 1: field 'image' is no picture" in found["problems"][0]
    assert "train_forget and train_retain share 1 pictures" in found["problems"][1]
    assert found["splits"]["forget"]["samples"] == 6
    unsee("data", "check", f"mllmu@{copied['mllmu']}", code=2)


@pytest.mark.parametrize("name", WRITERS)
def test_a_recipe_runs_on_each(
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
    # Before the attack the curve says what the evaluation says.
    start = attack["curves"]["unlearned"][0]["value"]
    assert start == summary["measures"][measure]["value"]
    assert summary["measures"][measure]["better"] == "lower"
    assert summary["gallery"]
    assert (out / "report.html").read_text("utf-8").count("data:image/png") >= 2
    assert set(summary["forgetting"]) == set(BENCHMARKS.get(name).forgetting) & set(
        summary["benchmark"]["samples"]
    )
    declared = {f"{m.split}/{m.modality}/{m.metric}": m.better
                for m in BENCHMARKS.get(name).measures}  # fmt: skip
    shared = declared.keys() & summary["measures"].keys()
    assert shared
    assert all(summary["measures"][key]["better"] == declared[key] for key in shared)
    if name == "mllmu":
        assert summary["measures"]["forget/vqa/accuracy"]["n"] == 1


@pytest.mark.parametrize("name", WRITERS)
def test_a_model_is_evaluated_on_each(
    name: str, places: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    summary = unsee(
        "evaluate", "--model", tiny_folder, "--data", f"{name}:forget@{places[name]}",
        "--reference", tiny_folder,
        "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert summary["benchmark"]["name"] == name
    assert any(key.startswith("forget/vqa/") for key in summary["measures"])


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_pages_run(
    line: str, places: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    words = [
        re.sub(r"^(\w+)(.*)@DIR", lambda found: f"{found[1]}{found[2]}@{places[found[1]]}", word)
        for word in shlex.split(line)[1:]
    ]
    words = [re.sub(r"^steps=.*", "steps=1", word) for word in words]
    if words[0] != "data":
        words += ["--out", str(tmp_path / "run")]
    found = unsee(*(tiny_folder if w == "MODEL" else w for w in words), "--json")
    if "--metrics" in words:
        asked = words[words.index("--metrics") + 1].split(",")
        assert {key.rpartition("/")[2] for key in found["measures"]} == set(asked)


def test_every_benchmark_and_metric_has_a_command() -> None:
    assert {f"unsee data check {name}@" for name in WRITERS} == {
        f"{line.replace(chr(39), '').partition('@')[0]}@" for line in COMMANDS if "check" in line
    }
    named = {name for line in COMMANDS for name in re.findall(r"--metrics (\S+)", line)}
    assert {name for some in named for name in some.split(",")} == set(METRICS.names())


def test_a_recipe_needs_a_model_and_a_known_benchmark(
    places: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "job.yaml"
    recipe.write_text(f"benchmark: umu\ndata: {places['umu']}\nforget_ratio: 10\n")
    assert "which model? umu comes with none" in unsee("run", recipe, "--dry-run", code=2)
    recipe.write_text("benchmark: umuu\n")
    assert "Did you mean 'umu'" in unsee("run", recipe, "--dry-run", code=2)
