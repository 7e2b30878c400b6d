"""What works on each type of vision-language model of transformers; written into docs/families.md.

    python -m experiments.quality.families [--types a,b] [--jobs N] [--records FILE.jsonl]

Of every type that the installed transformers maps to AutoModelForImageTextToText, a tiny checkpoint
with random weights is made from the real classes (`experiments.tiny`). It is loaded and checked,
unlearned from pictures alone, from answers and with LoRA, patched and evaluated (`STEPS`), in a
process of its own with a time limit, first as if torchvision and timm were not installed. Every
type is one row of the JSONL file; a type with a row is tried again only with --again. Rows hold the
version of transformers and the commit that they ran at.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from experiments.pages import DOCS, ROOT, append_row, read_rows, replace_section
from experiments.quality.families_page import section
from experiments.tiny.make import MODEL_TYPES, make
from experiments.tiny.processors import NotBuiltError
from unsee.artifacts.patch import apply_patch, write_patch
from unsee.artifacts.verify import verify
from unsee.data.readers import read_table
from unsee.errors import ConfigError, ModelError, UnseeError, first_line
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import make_recipe
from unsee.runs.preflight import check_model
from unsee.training.trainer import Trainer

ROWS = Path(__file__).with_name("families.jsonl")
PAGE = DOCS / "families.md"
# Optional packages that some processors or encoders need.
OPTIONAL = ("torchvision", "timm")
LIMIT = 600
MADE = "made"
LONGEST = 600
PRELOADED = ("peft", "rouge_score.rouge_scorer", "transformers.generation.utils")
# The settings of the runs that unlearn.
SHORT = {"steps": 2, "batch_size": 2, "augment": 0}
TABLES = {"forget": "forget.jsonl", "retain": "retain.jsonl"}
# The table without its question about no picture, for types that answer none.
PICTURED = "retain_pictured.jsonl"
# The recipe of each step that unlearns.
RECIPES: dict[str, dict[str, Any]] = {
    "features only": {"forget": "forget", "retain": "retain", "ask": "none", "set": SHORT},
    "full": {**TABLES, "set": SHORT},
    "LoRA": {**TABLES, "method": "npo", "set": {"steps": 2, "batch_size": 2, "lora": 2}},
}


def draw_pictures(folder: Path) -> None:
    """Writes two people's pictures of noise in several shapes, and questions about them."""
    rng = np.random.default_rng(0)
    for side, name in (("forget", "Ada"), ("retain", "Bo")):
        (folder / side / name).mkdir(parents=True)
        rows: list[dict[str, str]] = []
        for width, height in ((56, 56), (96, 56), (60, 90)):
            path = folder / side / name / f"{width}.png"
            Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
            rows.append(
                {"image": str(path), "question": "Who is it?", "answer": name, "concept": name}
            )
        if side == "retain":
            _write_rows(folder / PICTURED, rows)
            rows.append({"question": "Where is Bo?", "answer": "At sea", "concept": name})
        _write_rows(folder / f"{side}.jsonl", rows)


def _write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _kept() -> str:
    """The retain table that fits the checkpoint."""
    vlm = VLM.load("model", visual_only=True)
    return TABLES["retain"] if vlm.family.takes_text_alone(vlm.processor) else PICTURED


def try_type(model_type: str, folder: Path) -> dict[str, Any]:
    """Makes the checkpoint of a type and takes every step with it, in this process.

    Args:
        model_type: The type.
        folder: An empty folder.

    Returns:
        The error's first line of each step that failed, by step; "" of one that worked.
    """
    os.chdir(folder)
    draw_pictures(folder)
    told = {MADE: _reason(lambda: make(model_type, folder / "model"))}
    if told[MADE]:
        return told
    for name, step in STEPS.items():
        needed = NEEDS_STEP.get(name)
        failed = needed is not None and told[needed]
        told[name] = f"not tried, because '{needed}' failed" if failed else _reason(step)
    return told


def _reason(step: Callable[[], object]) -> str:
    """Takes a step; returns "" if it worked, else its error's first line."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            step()
    except (UnseeError, NotBuiltError) as error:
        return first_line(error)[:LONGEST]
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"[:LONGEST]
    return ""


def load_step() -> None:
    """Loads the checkpoint, with the check of the laws of families."""
    VLM.load("model")


def unlearn_step(name: str) -> VLM:
    """Plans a recipe, checks its data with the model's processor, and unlearns.

    Args:
        name: The recipe's name in `RECIPES`.
    """
    data = {"retain": _kept()} if RECIPES[name]["retain"] == TABLES["retain"] else {}
    job, _ = plan(make_recipe({"model": "model", **RECIPES[name], **data}), "unlearn", "")
    vlm = job.load("model")
    check_model(job, vlm)
    if job.method is None:
        raise ConfigError("the recipe unlearns nothing.")
    before = {key: value.detach().clone() for key, value in vlm.parameters().items()}
    job.method.unlearn(vlm, job.data, Trainer(job.settings))
    after = vlm.parameters()
    if all(value.is_meta or torch.equal(value, after[key]) for key, value in before.items()):
        raise ModelError("no weight has changed.")
    return vlm


def features_step() -> None:
    """Unlearns from pictures alone and writes the patch."""
    write_patch(unlearn_step("features only"), "model", "patch")


def patch_step() -> None:
    """Applies the patch and compares the models."""
    apply_patch("patch", "model", "patched")
    found = verify("model", "patched", probes=1)
    if not found.language_identical:
        raise ModelError("the patch changed the language part.")
    if not found.differing:
        raise ModelError("the patch changed nothing.")


def evaluate_step() -> None:
    """Answers and scores questions with and, if the type answers those, without a picture."""
    vlm = VLM.load("model")
    evaluate(vlm, {"retain": read_table(Path(_kept()), "retain")}, max_new_tokens=4)


STEPS: dict[str, Callable[[], object]] = {
    "loads": load_step,
    "features only": features_step,
    "full": partial(unlearn_step, "full"),
    "LoRA": partial(unlearn_step, "LoRA"),
    "patch": patch_step,
    "evaluate": evaluate_step,
}


# The step without which another cannot work. Pictures alone need no more than the visual part.
NEEDS_STEP = {"full": "loads", "LoRA": "loads", "patch": "features only", "evaluate": "loads"}


def serve(types: Sequence[str], jobs: int, limit: int) -> None:
    """Tries types, each in a forked process of its own, and prints a line of JSON for each.

    What is imported here is imported once for all.

    Args:
        types: The types.
        jobs: Number of types side by side.
        limit: Most seconds of each.
    """
    for module in PRELOADED:
        importlib.import_module(module)
    fork = multiprocessing.get_context("fork")
    waiting, running = list(types), dict[Any, tuple[str, Any, float]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            reader, writer = fork.Pipe(duplex=False)
            process = fork.Process(target=_try_into, args=(name, writer))
            process.start()
            writer.close()
            running[reader] = (name, process, time.monotonic())
        ready = multiprocessing.connection.wait(list(running), timeout=1)
        for reader, (name, process, start) in list(running.items()):
            late = time.monotonic() - start > limit
            if reader not in ready and not late:
                continue
            steps = {MADE: "", "time": f"not finished after {limit} seconds"}
            if reader in ready:
                try:
                    steps = reader.recv()
                except EOFError:
                    steps = {MADE: "the process ended without an answer"}
            process.kill()
            process.join()
            del running[reader]
            seconds = round(time.monotonic() - start, 1)
            print(json.dumps({"type": name, "steps": steps, "seconds": seconds}), flush=True)


def _try_into(name: str, writer: Any) -> None:
    """Tries a type in a temporary folder and sends the steps."""
    # What libraries print of every type would hide the rows.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory() as folder:
        writer.send(try_type(name, Path(folder)))


def served(
    types: Sequence[str], hidden: Sequence[str], jobs: int, limit: int
) -> Iterator[dict[str, Any]]:
    """Runs `serve` in a process without some packages, and yields what it prints.

    Args:
        types: The types.
        hidden: The packages that this process cannot import.
        jobs: Number of types side by side.
        limit: Most seconds of each.
    """
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({list(hidden)!r})); "
        f"from experiments.quality.families import serve; serve({list(types)!r}, {jobs}, {limit})"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            yield json.loads(line)
    if process.returncode:
        raise RuntimeError(f"the process that tries types ended with code {process.returncode}")


def run_all(
    path: Path, types: Sequence[str], jobs: int, limit: int, again: bool
) -> list[dict[str, Any]]:
    """Tries the types that have no row; returns all rows.

    Args:
        path: The JSONL file.
        types: The types to try.
        jobs: Number of types side by side.
        limit: Most seconds of each type.
        again: Try types that have a row, too; the last row of a type counts.
    """
    rows = read_rows(path)
    known = set() if again else {row["type"] for row in rows}
    facts = {"transformers": transformers.__version__, "commit": _commit()}
    missing = [name for name in types if name not in known]
    for needs in ((), ("torchvision",), OPTIONAL):
        if not missing or any(find_spec(package) is None for package in needs):
            continue
        hidden = [package for package in OPTIONAL if package not in needs]
        left = [package for package in hidden if find_spec(package) is not None]
        tried, missing = missing, []
        for row in served(tried, hidden, jobs, limit):
            if any(package in row["steps"][MADE].lower() for package in left):
                missing.append(row["type"])
            else:
                append_row(path, rows, {**row, "needs": list(needs), **facts})
    return rows


def _commit() -> str:
    """The commit of the working tree; with "+" if files differ from it."""
    told = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(told, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Tries what is missing and writes the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", help="separated by commas; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="types side by side")
    parser.add_argument("--records", type=Path, default=ROWS)
    parser.add_argument("--limit", type=int, default=LIMIT, help="most seconds of each type")
    parser.add_argument("--again", action="store_true", help="also types that have a row")
    given = parser.parse_args()
    types = given.types.split(",") if given.types else MODEL_TYPES
    unknown = sorted(set(types) - set(MODEL_TYPES))
    if unknown:
        parser.error(f"unknown types: {', '.join(unknown)}. Known: {', '.join(MODEL_TYPES)}")
    rows = run_all(given.records, types, given.jobs, given.limit, given.again)
    if given.records == ROWS:
        replace_section(PAGE, "types", section(rows, MODEL_TYPES, tuple(STEPS)))


if __name__ == "__main__":
    main()
