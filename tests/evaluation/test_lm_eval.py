"""lm-evaluation-harness on real checkpoints, run by its own code.

lm-eval warns a lot, and warnings are errors here, so commands run in a process of their own: one
for all commands of a test, since importing it takes seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support import cli, tiny
from unsee.artifacts.patch import write_patch
from unsee.benchmarks.pocket import Pocket
from unsee.evaluation.generation import generate
from unsee.models.vlm import VLM
from unsee.types import Sample

needs_harness = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install 'unsee[lm-eval]'"
)

DRIVER = """
import contextlib, io, json, sys
from unsee.cli import main
done = []
for arguments in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["unsee", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    done.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps(done))
"""

TEXT = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
fewshot_split: test
output_type: multiple_choice
doc_to_text: "USER: {{{{question}}}}\\nASSISTANT:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.5}}
"""

SEEN = """
task: {name}
dataset_path: imagefolder
dataset_kwargs: {{data_dir: {file}}}
test_split: test
doc_to_image: [image]
doc_to_text: "{text}"
metadata: {{version: 2.0}}
"""
SAID = """
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12, do_sample: false, temperature: 0.0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOSEN = """
output_type: multiple_choice
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
ASKED = "USER: <image>\\n{{question}}\\nASSISTANT:"


def run(commands: list[list[str | Path]], cwd: Path, **environment: str) -> list[dict[str, Any]]:
    """Runs commands of `unsee` one after another, without the hub."""
    own = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd / "hf")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER],
        input=json.dumps([[str(word) for word in command] for command in commands]),
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | own | environment,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_questions(path: Path) -> list[dict[str, Any]]:
    """Multiple choice about people by name, and about pictures that are not there: partly known."""
    named = [s for s in Pocket().load("retain") if s.task == "classification"]
    asked = [s for s in named if s.picture is None][:12] + [s for s in named if s.picture][:12]
    found = [
        {
            "question": s.question.split("\n")[0],
            "choices": [f"{choice}." for choice in s.choices],
            "answer": "ABCD".index(s.answer),
        }
        for s in asked
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
    return found


def write_pictures(folder: Path, samples: list[Sample]) -> None:
    """A folder of pictures as `datasets` reads it: with questions and answers beside them."""
    (folder / "test").mkdir(parents=True)
    lines = []
    for number, sample in enumerate(samples):
        assert sample.picture is not None
        sample.picture.open().save(folder / "test" / f"{number}.png")
        row = {"file_name": f"{number}.png", "question": sample.question, "answer": sample.answer}
        lines.append(json.dumps(row) + "\n")
    (folder / "test" / "metadata.jsonl").write_text("".join(lines), "utf-8")


@pytest.fixture(scope="module")
def asked() -> dict[str, list[Sample]]:
    """Pocket's questions about pictures, by task."""
    seen = [s for s in Pocket().load("general") if s.picture is not None]
    return {
        kind: [s for s in seen if s.task == kind][:4] for kind in ("generation", "classification")
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, asked: dict[str, list[Sample]]) -> Path:
    """A folder with tasks and a patch of pocket's target."""
    folder = tmp_path_factory.mktemp("harness")
    tasks = folder / "tasks"
    tasks.mkdir()
    rows = write_questions(tasks / "names.jsonl")
    (tasks / "half.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[:6]), "utf-8")
    for name in ("names", "half"):
        text = TEXT.format(name=name, file=tasks / f"{name}.jsonl")
        (tasks / f"{name}.yaml").write_text(text, "utf-8")
    (tasks / "all.yaml").write_text(
        "group: everyone\ntask: [names, half]\n"
        "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n", "utf-8"
    )  # fmt: skip
    for name, kind, rest in (("said", "generation", SAID), ("chosen", "classification", CHOSEN)):
        write_pictures(tasks / f"{name}-data", asked[kind])
        text = SEEN.format(name=name, file=tasks / f"{name}-data", text=ASKED)
        (tasks / f"{name}.yaml").write_text(text + rest, "utf-8")
    lost = TEXT.format(name="lost", file=tasks / "lost.jsonl")
    (tasks / "lost.yaml").write_text(lost, "utf-8")
    remote = TEXT.format(name="remote", file="x").replace("path: json", "path: nobody/nothing")
    (tasks / "remote.yaml").write_text(remote, "utf-8")
    # Needs a folder beside it, and says so only once it is scored.
    late = TEXT.format(name="late", file=tasks / "half.jsonl")
    (tasks / "late.yaml").write_text(late + "process_results: !function late.score\n", "utf-8")
    (tasks / "late.py").write_text(
        "from pathlib import Path\n\n\ndef score(doc, answers):\n"
        "    return {'acc': len((Path(__file__).parent / 'there').read_text())}\n",
        "utf-8",
    )
    vlm = VLM.load(Pocket().checkpoint("target"))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in vlm.parameters("projector").values():
            parameter.add_(torch.randn_like(parameter))
    write_patch(vlm, vlm.source, folder / "patch")
    return folder


def likelihoods(vlm: VLM, row: dict[str, Any]) -> list[float]:
    """Log-likelihoods (nats) of the choices, one forward pass each."""
    tokens, found = vlm.processor.tokenizer, []
    prompt = f"USER: {row['question']}\nASSISTANT:"
    start = len(tokens(prompt)["input_ids"])
    for choice in row["choices"]:
        ids = torch.tensor([tokens(f"{prompt} {choice}")["input_ids"]])
        with torch.no_grad():
            logits = vlm.model(input_ids=ids).logits[0].log_softmax(-1)
        found.append(sum(float(logits[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])))
    return found


@needs_harness
def test_tasks_on_a_patch_and_its_base(place: Path, asked: dict[str, list[Sample]]) -> None:
    target = Pocket().checkpoint("target")
    (done,) = run(
        [["evaluate", "--model", target, "--patch", "patch", "--target", target, "--tasks",
          "names,said,chosen,everyone", "--tasks-path", "tasks", "--out", "run", "--json"]],
        place,
    )  # fmt: skip
    assert done["code"] == 0, done["err"]
    summary = json.loads(done["out"])
    assert json.loads((place / "run" / "summary.json").read_text("utf-8")) == summary
    base, patched = summary["target"], summary["measures"]
    lines = (place / "run" / "scores.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]

    def answers(model: str, task: str) -> list[str]:
        return [r["output"] for r in rows if (r["model"], r["split"]) == (model, task)]

    # Text: the accuracy of our own log-likelihoods, on the base and, bit for bit, on the patch.
    vlm = VLM.load(target)
    text = (place / "tasks" / "names.jsonl").read_text("utf-8")
    questions = [json.loads(line) for line in text.splitlines()]
    best = [int(np.argmax(likelihoods(vlm, row))) for row in questions]
    accuracy = np.mean([b == row["answer"] for b, row in zip(best, questions, strict=True)])
    assert 0 < accuracy < 1
    assert base["names/text/acc"]["value"] == pytest.approx(accuracy)
    assert base["names/text/acc"]["n"] == len(questions)
    assert answers("target", "names") == [str(b) for b in best]
    assert patched["names/text/acc"] == base["names/text/acc"]
    error = np.sqrt(accuracy * (1 - accuracy) / (len(questions) - 1))
    assert base["names/text/acc"]["high"] - accuracy == pytest.approx(1.959964 * error)

    # Pictures: what our own generation and our own logits say, here and under the patch.
    said = generate(vlm, asked["generation"], max_new_tokens=12)
    assert [a.strip() for a in answers("target", "said")] == said
    assert answers("unlearned", "said") != answers("target", "said")
    batch = vlm.collate(asked["classification"], with_answer=False)
    ids = [vlm.processor.tokenizer(f"x {letter}")["input_ids"][-1] for letter in "ABCD"]
    with torch.no_grad():
        last = vlm.logits(batch)[:, -1][:, ids].argmax(-1).tolist()
    assert answers("target", "chosen") == [str(i) for i in last]
    right = np.mean(
        ["ABCD"[i] == s.answer for i, s in zip(last, asked["classification"], strict=True)]
    )
    assert base["chosen/vqa/acc"]["value"] == pytest.approx(right)

    # A group counts its tasks' samples.
    assert base["everyone/text/acc"]["n"] == len(questions) + 6
    facts = summary["harness"]
    assert (facts["limit"], facts["chat_template"]) == (None, False)
    assert set(facts["tasks"]) == {"names", "said", "chosen", "everyone", "half"}
    names = facts["tasks"]["names"]
    assert (names["version"], names["shots"], names["samples"]) == (1.5, 0, len(questions))
    assert len(names["prompts_sha256"]) == 64
    assert len(summary["provenance"]["patch_sha256"]) == 64
    page = (place / "run" / "report.html").read_text("utf-8")
    assert "General ability" in page and names["prompts_sha256"] in page


@needs_harness
def test_a_broken_off_run_goes_on(place: Path) -> None:
    """What was scored before is not scored again: a part that was altered shows in the result."""
    command = ["evaluate", "--model", Pocket().checkpoint("target"), "--tasks", "half,late",
               "--tasks-path", "tasks", "--limit", 3, "--shots", 2, "--out", "going"]  # fmt: skip
    (first,) = run([command], place)
    assert first["code"] == 1 and "No such file" in first["err"]
    part = place / "going" / ".parts" / "tasks-unlearned-0.json"
    held = json.loads(part.read_text("utf-8"))
    assert held["measures"]["half/text/acc"]["n"] == 3
    held["measures"]["half/text/acc"]["value"] = 0.125
    part.write_text(json.dumps(held), "utf-8")
    (place / "tasks" / "there").write_text("x", "utf-8")
    (second,) = run([command], place)
    assert second["code"] == 0, second["err"]
    summary = json.loads((place / "going" / "summary.json").read_text("utf-8"))
    assert summary["measures"]["half/text/acc"]["value"] == 0.125
    assert summary["measures"]["late/text/acc"]["value"] == 1
    assert summary["harness"]["tasks"]["half"] | {"prompts_sha256": ""} == {
        "version": 1.5, "shots": 2, "samples": 3, "of": 6, "prompts_sha256": "", "undirected": [],
    }  # fmt: skip
    row = (place / "going" / "scores.jsonl").read_text("utf-8").splitlines()[0]
    assert json.loads(row)["question"].count("ASSISTANT:") == 3
    assert not part.exists()


@needs_harness
def test_what_cannot_be_run_is_told_in_a_sentence(place: Path) -> None:
    start = ["evaluate", "--model", Pocket().checkpoint("target"), "--tasks-path"]
    wrong = {
        "tasks --tasks nams": "unknown task 'nams'. Did you mean 'names'? Allowed: `lm-eval ls",
        "tasks --tasks lost": "task 'lost': cannot be loaded (FileNotFoundError",
        "tasks --tasks remote": "Its data set is on the Hugging Face hub: run this once where",
        "nowhere --tasks names": "--tasks-path nowhere: no such folder",
        "tasks --tasks names --chat-template": "checkpoints of the family paligemma have none",
    }
    tiny.make("paligemma", place / "pali")
    commands = [[*start, *words.split(), "--out", "refused"] for words in wrong]
    commands[-1][2] = place / "pali"
    for done, words in zip(run(commands, place), wrong.values(), strict=True):
        assert done["code"] == 2
        assert words in done["err"]
        assert "Traceback" not in done["err"]
    assert not (place / "refused").exists()


FAMILIES = """
import contextlib, io, json, sys
from dataclasses import replace
from pathlib import Path
from unsee.evaluation.lm_eval import open_suite
from unsee.models.vlm import VLM
suite = open_suite(["said", "chosen"], Path("tasks"), 1)
for folder in sorted(Path("zoo").iterdir()):
    vlm = VLM.load(folder)
    for chat in (False, True) if vlm.family.uses_chat_template else (False,):
        for name in suite.loaded:
            with contextlib.redirect_stderr(io.StringIO()):
                found = replace(suite, chat=chat).run(name, vlm)
            print(json.dumps([folder.name, chat, name, found["rows"]]))
"""


@needs_harness
def test_every_family_runs_tasks(place: Path) -> None:
    for name in tiny.RECIPES:
        tiny.make(name, place / "zoo" / name)
    own = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "hf")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FAMILIES],
        capture_output=True, text=True, check=False, cwd=place, env=os.environ | own,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    plain = {(family, name) for family, chat, name, _ in found if not chat}
    assert plain == {(f, n) for f in tiny.RECIPES for n in ("said", "chosen")}
    for family, chat, _, (row,) in found:
        assert row["question"].startswith("USER: ") != chat, (family, row)
        assert isinstance(row["output"], str)


def test_without_lm_eval_the_extra_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unsee.evaluation.lm_eval.find_spec", lambda name: None)
    words = cli.unsee(
        "evaluate", "--model", Pocket().checkpoint("target"), "--tasks", "names",
        "--out", tmp_path / "run", code=2,
    )  # fmt: skip
    assert "pip install 'unsee[lm-eval]'" in words
    assert list(tmp_path.iterdir()) == []


def test_options_without_tasks() -> None:
    for words, told in {
        "": "nothing to evaluate on. Type --data PATH, --tasks NAME, or both.",
        "--limit 3 --data pocket:general": "need --tasks. Type --tasks NAME",
        "--tasks-path x": "need --tasks. Type --tasks NAME",
        "--metrics cloze": "nothing to evaluate on.",
    }.items():
        assert told in cli.unsee("evaluate", "--model", "DIR", *words.split(), code=2)


SHIPPED = {
    "lmms-lab/POPE": {
        "test": ("default", [
            {"question": "Is there a dog in the image?", "answer": "no", "category": "random"},
            {"question": "Is there a person in the image?", "answer": "yes", "category": "popular"},
        ])
    },
    "lmms-lab/ScienceQA": {
        "test": ("ScienceQA-IMG", [
            {"question": "Which is red?", "choices": ["this", "that"], "answer": 1, "hint": "See."},
            {"question": "Which is blue?", "choices": ["this", "that"], "answer": 0, "hint": ""},
        ])
    },
}  # fmt: skip


@needs_harness
def test_the_shipped_tasks_read_data_of_the_published_columns(place: Path) -> None:
    """Invented rows in a folder of the data set's name, which is read in the hub's stead."""
    import datasets

    def picture(shade: int) -> Image.Image:
        return Image.fromarray(np.full((24, 24, 3), shade, dtype=np.uint8))

    def table(repository: str, config: str, split: str, rows: list[dict[str, Any]]) -> None:
        folder = place / repository / config
        folder.mkdir(parents=True)
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        made = datasets.Dataset.from_dict(columns)
        if "image" in columns:
            made = made.cast_column("image", datasets.Image())
        made.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
        files = [f"- config_name: {path.name}\n  data_files:\n  - split: {split}\n    path: "
                 f"{path.name}/*.parquet\n" for path in sorted((place / repository).iterdir())
                 if path.is_dir()]  # fmt: skip
        text = "---\nconfigs:\n" + "".join(files) + "---\n"
        (place / repository / "README.md").write_text(text, "utf-8")

    for repository, splits in SHIPPED.items():
        for split, (config, rows) in splits.items():
            shown = [{**row, "image": picture(60 * i)} for i, row in enumerate(rows)]
            table(repository, config, split, shown)
    asked = [{"id": str(i), "imageId": f"n{1 - i}", "question": f"What is {i}?", "answer": "dog"}
             for i in range(2)]  # fmt: skip
    table("lmms-lab/GQA", "testdev_balanced_instructions", "testdev", asked)
    shown = [{"id": f"n{i}", "image": picture(90 * i)} for i in range(2)]
    table("lmms-lab/GQA", "testdev_balanced_images", "testdev", shown)
    (done,) = run(
        [["evaluate", "--model", Pocket().checkpoint("target"), "--tasks", "pope,scienceqa_img,gqa",
          "--out", "shipped", "--json"]],
        place,
    )  # fmt: skip
    assert done["code"] == 0, done["err"]
    summary = json.loads(done["out"])
    assert {k: m["n"] for k, m in summary["measures"].items()} == {
        "pope/vqa/acc": 2, "pope/vqa/f1": 2, "pope/vqa/yes_ratio": 2,
        "scienceqa_img/vqa/exact_match": 2, "gqa/vqa/exact_match": 2,
    }  # fmt: skip
    assert summary["harness"]["tasks"]["pope"]["undirected"] == ["yes_ratio"]
    lines = (place / "shipped" / "scores.jsonl").read_text("utf-8").splitlines()
    first = {row["split"]: row for row in reversed([json.loads(line) for line in lines])}
    assert first["scienceqa_img"]["question"] == (
        "<image>\nContext: See.\nWhich is red?\nA. this\nB. that\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert first["scienceqa_img"]["truth"] == "B"
    assert first["pope"]["question"].startswith("<image>\nIs there a dog in the image?\nAnswer")
    assert first["gqa"]["truth"] == "dog"
