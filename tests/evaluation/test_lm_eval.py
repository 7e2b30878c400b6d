"""`unsee evaluate --tasks` with lm-evaluation-harness on real checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support import cli, tiny
from support.lm_eval import needs_lm_eval, read_scores, run_commands, run_script
from unsee.artifacts.patch import write_patch
from unsee.benchmarks.pocket import Pocket
from unsee.evaluation.generation import generate
from unsee.files import read_json_with_digest, write_json_with_digest
from unsee.models.vlm import VLM
from unsee.types import Sample

TEXT_TASK = """
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

PICTURE_TASK = """
task: {name}
dataset_path: imagefolder
dataset_kwargs: {{data_dir: {folder}}}
test_split: test
doc_to_image: [image]
doc_to_text: "USER: <image>\\n{{{{question}}}}\\nASSISTANT:"
metadata: {{version: 2.0}}
"""
GENERATION = """
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12, do_sample: false, temperature: 0.0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOICE = """
output_type: multiple_choice
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""

# A group of two tasks.
GROUP = """
group: everyone
task: [names, half]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
"""

# Fails while it scores, as long as there is no file `there` beside it.
FAILING_SCORE = """
from pathlib import Path


def score(doc, answers):
    return {'acc': len((Path(__file__).parent / 'there').read_text())}
"""

# With and without a chat template, with one picture size and any, with tiles.
FAMILIES = ("llava", "qwen2_5_vl", "idefics3", "paligemma", "mllama")
FURTHER = tuple(name for name in tiny.RECIPES if name not in FAMILIES)

ON_FAMILIES = """
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
                results = replace(suite, chat=chat).run(name, vlm)
            print(json.dumps([folder.name, chat, name, results["rows"]]))
"""


# What follows `evaluate --tasks-path`, and the message; the last is asked of another model.
REFUSED = {
    "tasks --tasks nams": "unknown task 'nams'. Did you mean 'names'? Allowed: `lm-eval ls",
    "tasks --tasks lost": "task 'lost': cannot be loaded (FileNotFoundError",
    "tasks --tasks remote": "Its data set is on the Hugging Face hub: run this once where",
    "nowhere --tasks names": "--tasks-path nowhere: no such folder",
    "tasks --tasks names --chat-template": "checkpoints of the family paligemma have none",
}


def jsonl(rows: Sequence[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def name_questions() -> list[dict[str, Any]]:
    """Returns multiple-choice questions about people by name, and about pictures that are left out.

    The target model knows some of the answers.
    """
    samples = [s for s in Pocket().load("retain") if s.task == "classification"]
    by_name = [s for s in samples if s.picture is None][:12]
    about_pictures = [s for s in samples if s.picture][:12]
    return [
        {
            "question": s.question.split("\n")[0],
            "choices": [f"{choice}." for choice in s.choices],
            "answer": "ABCD".index(s.answer),
        }
        for s in by_name + about_pictures
    ]


def write_text_tasks(tasks: Path) -> None:
    """Writes the tasks `names` and `half` (of its questions), and the group of both."""
    questions = name_questions()
    for name, rows in (("names", questions), ("half", questions[:6])):
        file = tasks / f"{name}.jsonl"
        file.write_text(jsonl(rows), "utf-8")
        (tasks / f"{name}.yaml").write_text(TEXT_TASK.format(name=name, file=file), "utf-8")
    (tasks / "all.yaml").write_text(GROUP, "utf-8")


def write_picture_task(tasks: Path, name: str, samples: Sequence[Sample], output: str) -> None:
    """Writes a task about pictures, with its data in the layout of `datasets`' imagefolder."""
    folder = tasks / f"{name}-data"
    (folder / "test").mkdir(parents=True)
    rows = []
    for number, sample in enumerate(samples):
        assert sample.picture is not None
        file = f"{number}.png"
        sample.picture.open().save(folder / "test" / file)
        rows.append({"file_name": file, "question": sample.question, "answer": sample.answer})
    (folder / "test" / "metadata.jsonl").write_text(jsonl(rows), "utf-8")
    text = PICTURE_TASK.format(name=name, folder=folder)
    (tasks / f"{name}.yaml").write_text(text + output, "utf-8")


def write_faulty_tasks(tasks: Path) -> None:
    """Writes tasks without data, with data on the hub, and with a scorer that fails at first."""
    lost = TEXT_TASK.format(name="lost", file=tasks / "lost.jsonl")
    (tasks / "lost.yaml").write_text(lost, "utf-8")
    remote = TEXT_TASK.format(name="remote", file="x")
    remote = remote.replace("path: json", "path: nobody/nothing")
    (tasks / "remote.yaml").write_text(remote, "utf-8")
    late = TEXT_TASK.format(name="late", file=tasks / "half.jsonl")
    (tasks / "late.yaml").write_text(late + "process_results: !function late.score\n", "utf-8")
    (tasks / "late.py").write_text(FAILING_SCORE, "utf-8")


@pytest.fixture(scope="module")
def picture_questions() -> dict[str, list[Sample]]:
    """Pocket's questions about pictures, by task."""
    samples = [s for s in Pocket().load("general") if s.picture is not None]
    return {
        task: [s for s in samples if s.task == task][:4]
        for task in ("generation", "classification")
    }


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory, picture_questions: dict[str, list[Sample]]
) -> Path:
    """A folder with tasks and a patch of pocket's target that changes the projector."""
    folder = tmp_path_factory.mktemp("harness")
    tasks = folder / "tasks"
    tasks.mkdir()
    write_text_tasks(tasks)
    write_picture_task(tasks, "said", picture_questions["generation"], GENERATION)
    write_picture_task(tasks, "chosen", picture_questions["classification"], CHOICE)
    write_faulty_tasks(tasks)
    vlm = VLM.load(Pocket().checkpoint("target"))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in vlm.parameters("projector").values():
            parameter.add_(torch.randn_like(parameter))
    write_patch(vlm, vlm.source, folder / "patch")
    return folder


def evaluation() -> list[object]:
    """The command that evaluates a patch and its base; the run is in `run`."""
    target = Pocket().checkpoint("target")
    models = ["--model", target, "--patch", "patch", "--target", target]
    tasks = ["--tasks", "names,said,chosen,everyone", "--tasks-path", "tasks"]
    return ["evaluate", *models, *tasks, "--out", "run", "--json"]


def failing() -> list[object]:
    """A command whose second task fails at first; its run is in `resumed`."""
    tasks = ["--tasks", "half,late", "--tasks-path", "tasks", "--limit", 3, "--shots", 2]
    return ["evaluate", "--model", Pocket().checkpoint("target"), *tasks, "--out", "resumed"]


def wrong() -> list[list[object]]:
    """Commands that are to be refused, as `REFUSED` says."""
    start: list[object] = ["evaluate", "--model", Pocket().checkpoint("target"), "--tasks-path"]
    commands = [[*start, *words.split(), "--out", "refused"] for words in REFUSED]
    commands[-1][2] = "pali"
    return commands


@pytest.fixture(scope="module")
def printed(workspace: Path) -> list[dict[str, Any]]:
    """The results of all commands above, which share a process, since importing takes seconds."""
    tiny.make("paligemma", workspace / "pali")
    return run_commands([evaluation(), failing(), *wrong()], workspace)


@pytest.fixture(scope="module")
def summary(printed: list[dict[str, Any]]) -> dict[str, Any]:
    """What `unsee evaluate` prints about a patch and its base."""
    assert printed[0]["code"] == 0, printed[0]["err"]
    found: dict[str, Any] = json.loads(printed[0]["out"])
    return found


def answers(workspace: Path, model: str, task: str) -> list[str]:
    rows = read_scores(workspace / "run")
    return [r["output"] for r in rows if (r["model"], r["split"]) == (model, task)]


def log_likelihoods(vlm: VLM, row: dict[str, Any]) -> list[float]:
    """Returns the log-likelihoods (nats) of the choices, from one forward pass each."""
    tokenizer, sums = vlm.processor.tokenizer, []
    prompt = f"USER: {row['question']}\nASSISTANT:"
    start = len(tokenizer(prompt)["input_ids"])
    for choice in row["choices"]:
        ids = torch.tensor([tokenizer(f"{prompt} {choice}")["input_ids"]])
        with torch.no_grad():
            logits = vlm.model(input_ids=ids).logits[0].log_softmax(-1)
        sums.append(sum(float(logits[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])))
    return sums


@needs_lm_eval
def test_text_task_equals_own_log_likelihoods(workspace: Path, summary: dict[str, Any]) -> None:
    vlm = VLM.load(Pocket().checkpoint("target"))
    questions = name_questions()
    best = [int(np.argmax(log_likelihoods(vlm, row))) for row in questions]
    accuracy = np.mean([b == row["answer"] for b, row in zip(best, questions, strict=True)])
    assert 0 < accuracy < 1
    measure = summary["target"]["names/text/acc"]
    assert measure["value"] == pytest.approx(accuracy)
    assert measure["n"] == len(questions)
    assert answers(workspace, "target", "names") == [str(b) for b in best]
    error = np.sqrt(accuracy * (1 - accuracy) / (len(questions) - 1))
    assert measure["high"] - accuracy == pytest.approx(1.959964 * error)


@needs_lm_eval
def test_text_task_is_the_same_with_a_visual_patch(summary: dict[str, Any]) -> None:
    assert summary["measures"]["names/text/acc"] == summary["target"]["names/text/acc"]


@needs_lm_eval
def test_picture_tasks_equal_own_generation_and_logits(
    workspace: Path, summary: dict[str, Any], picture_questions: dict[str, list[Sample]]
) -> None:
    vlm = VLM.load(Pocket().checkpoint("target"))
    generated = generate(vlm, picture_questions["generation"], max_new_tokens=12)
    assert [a.strip() for a in answers(workspace, "target", "said")] == generated
    assert answers(workspace, "unlearned", "said") != answers(workspace, "target", "said")
    samples = picture_questions["classification"]
    batch = vlm.collate(samples, with_answer=False)
    ids = [vlm.processor.tokenizer(f"x {letter}")["input_ids"][-1] for letter in "ABCD"]
    with torch.no_grad():
        chosen = vlm.logits(batch)[:, -1][:, ids].argmax(-1).tolist()
    assert answers(workspace, "target", "chosen") == [str(i) for i in chosen]
    accuracy = np.mean(["ABCD"[i] == s.answer for i, s in zip(chosen, samples, strict=True)])
    assert summary["target"]["chosen/vqa/acc"]["value"] == pytest.approx(accuracy)


@needs_lm_eval
def test_evaluate_records_tasks_and_prompts(workspace: Path, summary: dict[str, Any]) -> None:
    assert json.loads((workspace / "run" / "summary.json").read_text("utf-8")) == summary
    questions = len(name_questions())
    # A group counts its tasks' samples.
    assert summary["target"]["everyone/text/acc"]["n"] == questions + 6
    harness = summary["harness"]
    assert (harness["limit"], harness["chat_template"]) == (None, False)
    assert set(harness["tasks"]) == {"names", "said", "chosen", "everyone", "half"}
    names = harness["tasks"]["names"]
    assert (names["version"], names["shots"], names["samples"]) == (1.5, 0, questions)
    assert len(names["prompts_sha256"]) == 64
    assert len(summary["provenance"]["patch_sha256"]) == 64
    page = (workspace / "run" / "report.html").read_text("utf-8")
    assert "General ability" in page and names["prompts_sha256"] in page


@needs_lm_eval
def test_evaluate_resumes_without_repeating_finished_tasks(
    workspace: Path, printed: list[dict[str, Any]]
) -> None:
    """The stored result of the finished task is altered, and the alteration must be reported."""
    first = printed[1]
    assert first["code"] == 1 and "No such file" in first["err"]
    part = workspace / "resumed" / ".parts" / "tasks-unlearned-0.json"
    kept = read_json_with_digest(part)
    stored = kept["value"]
    assert stored["measures"]["half/text/acc"]["n"] == 3
    stored["measures"]["half/text/acc"]["value"] = 0.125
    write_json_with_digest(part, kept)
    (workspace / "tasks" / "there").write_text("x", "utf-8")
    (second,) = run_commands([failing()], workspace)
    assert second["code"] == 0, second["err"]
    summary = json.loads((workspace / "resumed" / "summary.json").read_text("utf-8"))
    assert summary["measures"]["half/text/acc"]["value"] == 0.125
    assert summary["measures"]["late/text/acc"]["value"] == 1
    assert summary["harness"]["tasks"]["half"] | {"prompts_sha256": ""} == {
        "version": 1.5,
        "shots": 2,
        "samples": 3,
        "of": 6,
        "prompts_sha256": "",
        "undirected": [],
    }
    assert read_scores(workspace / "resumed")[0]["question"].count("ASSISTANT:") == 3
    assert not part.exists()


@needs_lm_eval
def test_evaluate_refuses_tasks_that_cannot_run_without_a_traceback(
    workspace: Path, printed: list[dict[str, Any]]
) -> None:
    for result, message in zip(printed[2:], REFUSED.values(), strict=True):
        assert result["code"] == 2
        assert message in result["err"]
        assert "Traceback" not in result["err"]
    assert not (workspace / "refused").exists()


@needs_lm_eval
@pytest.mark.parametrize(
    "families",
    [
        FAMILIES,
        pytest.param([n for n in tiny.RECIPES if n not in FAMILIES], marks=pytest.mark.slow),
    ],
    ids=["every run", "on demand"],
)
def test_suite_runs_tasks_on_families(
    families: Sequence[str], workspace: Path, tmp_path: Path
) -> None:
    for name in families:
        tiny.make(name, tmp_path / "zoo" / name)
    shutil.copytree(workspace / "tasks", tmp_path / "tasks")
    results = [json.loads(line) for line in run_script(ON_FAMILIES, tmp_path)]
    without_chat = {(family, name) for family, chat, name, _ in results if not chat}
    assert without_chat == {(f, n) for f in families for n in ("said", "chosen")}
    for family, chat, _, (row,) in results:
        # The task's own text begins with a role, and so does LLaVA's chat template around it.
        own = row["question"].startswith("USER: ") and row["question"].count("USER: ") == 1
        assert own != chat, (family, row)
        assert isinstance(row["output"], str)


def test_evaluate_without_lm_eval_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unsee.evaluation.lm_eval.find_spec", lambda name: None)
    command = ["evaluate", "--model", Pocket().checkpoint("target"), "--tasks", "names"]
    errors = cli.unsee(*command, "--out", tmp_path / "run", code=2)
    assert "pip install 'unsee[lm-eval]'" in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "nothing to evaluate on. Type --data PATH, --tasks NAME, or both."),
        ("--limit 3 --data pocket:general", "need --tasks. Type --tasks NAME"),
        ("--tasks-path x", "need --tasks. Type --tasks NAME"),
        ("--metrics cloze", "nothing to evaluate on."),
    ],
)
def test_evaluate_refuses_task_options_without_tasks(words: str, message: str) -> None:
    assert message in cli.unsee("evaluate", "--model", "DIR", *words.split(), code=2)
