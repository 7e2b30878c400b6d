"""The walk of docs/how-to/deletion-requests.md: three requests from pictures, one undone.

    python -m experiments.quality.request_walk [--faces DIR] [--out runs/request-walk]

Answers three deletion requests of pocket's people with `unsee request`, from pictures alone: of one
person from all pictures that the model was trained on, of one from a single picture, and of a
third, who then withdraws the request. With `--faces`, a pocket benchmark is built from photographs
first (one subfolder a person), that of docs/results-photos.md. The models are then asked questions,
of which a controller would not have the answers. The page shows every command with its output.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from experiments.pages import DOCS, ROOT, table
from experiments.quality.photos import DATABASE, FORGOTTEN, PEOPLE, build_pocket
from unsee.benchmarks.pocket import Pocket
from unsee.records.provenance import describe_this_machine
from unsee.records.reader import read_run

PAGE = DOCS / "how-to" / "deletion-requests.md"
BEGIN, END = "<!-- walk:begin -->", "<!-- walk:end -->"

# One of the standard attacks that need no true answers; the others here take longer.
ATTACK = "prototype"

# Of the people to keep, some thirty photographs are held out to ask about: the default margin of
# 0.02 is far less than the interval of what they tell.
MARGIN = 0.1

# The folders of the walk, as its commands name them.
LEDGER, KEY = "ledger", "controller.pem"
SPLITS = ("forget_holdout", "retain_holdout", "general")


def write_photographs(pocket: Pocket, out: Path) -> list[str]:
    """Writes a folder of photographs for each person, as a controller has them.

    Returns:
        The folders' names of the people who ask to be forgotten; of the second, only one
        photograph is written.
    """
    world = pocket.world
    asking = list(world.forgotten)
    for role, people in (("requests", asking), ("others", world.retained)):
        shutil.rmtree(out / role, ignore_errors=True)
        for index in people:
            folder = out / role / world.people[index].slug
            folder.mkdir(parents=True)
            shots = world.shots_of([index], "train")
            for shot in shots[:1] if index == asking[1] else shots:
                shutil.copy(pocket.folder / shot.file, folder)
    return [world.people[index].slug for index in asking]


class Walk:
    """Commands that are run in one folder, and what they print.

    Attributes:
        folder: The working folder of all commands.
        text: The page so far.
    """

    def __init__(self, folder: Path) -> None:
        """Begins an empty page."""
        self.folder = folder
        self.text: list[str] = []

    def say(self, text: str) -> None:
        """Adds a paragraph."""
        self.text.append(text)

    def run(self, command: str, shown: bool = True, may_reject: bool = False) -> None:
        """Runs a command, and adds it to the page with its output and an exit code of 1.

        Args:
            command: What follows `unsee`, without quotes.
            shown: Whether it is added.
            may_reject: Whether it may end with the code 1, as for a result that is not accepted.

        Raises:
            CalledProcessError: If it fails.
        """
        print("unsee", command, flush=True)
        words = [sys.executable, "-m", "unsee", *command.split()]
        done = subprocess.run(
            words, cwd=self.folder, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode > may_reject:
            raise subprocess.CalledProcessError(done.returncode, command)
        if shown:
            output = done.stdout.replace(str(self.folder), ".").rstrip()
            code = "\n# exit code 1" if done.returncode else ""
            self.say(f"```console\n$ unsee {command}\n{output}{code}\n```")


def asked(walk: Walk, model: str, name: str, pocket: Pocket) -> dict[str, float]:
    """Returns what a model answers right: of each person who asks, of the others, in general."""
    folder = walk.folder / "asked" / name
    if not folder.exists():
        build = "" if pocket.folder == Pocket().folder else f"@{pocket.folder.resolve()}"
        data = [f"--data {s}=pocket:{s}{build}" for s in SPLITS]
        walk.run(f"evaluate --model {model} {' '.join(data)} --out asked/{name}", shown=False)
    run = read_run(folder)
    scores: dict[str, list[float]] = {}
    for sample in run.scores():
        person = sample.concept if sample.split == "forget_holdout" else sample.split
        accuracy = sample.scores.get("accuracy")
        if accuracy is not None:
            scores.setdefault(str(person), []).append(float(accuracy))
    return {name: sum(values) / len(values) for name, values in scores.items()}


def exported(walk: Walk, name: str) -> str:
    """Writes the checkpoint that is deployed after a step, and returns its folder."""
    shutil.rmtree(walk.folder / "deployed" / name, ignore_errors=True)
    walk.run(f"request export --out deployed/{name} --checkpoint --ledger {LEDGER}", shown=False)
    return f"deployed/{name}/model"


def walk_through(walk: Walk, pocket: Pocket) -> dict[str, dict[str, float]]:
    """Answers the requests; returns what the models then answer right."""
    first, second, third, *_ = write_photographs(pocket, walk.folder)
    target = "pocket:target"
    if pocket.folder != Pocket().folder:
        target = f"{pocket.folder.name}/{pocket.checkpoint('target').relative_to(pocket.folder)}"
    answers = {"deployed model": asked(walk, target, "before", pocket)}
    shutil.rmtree(walk.folder / LEDGER, ignore_errors=True)
    for file in (KEY, f"{KEY}.pub", "salt.key"):
        (walk.folder / file).unlink(missing_ok=True)
    walk.say(
        "A ledger over the deployed model, with photographs of people whom it must still know, of "
        "whom few are held out to ask about:"
    )
    words = f"--model {target} --retain others --attack none --keep-margin {MARGIN}"
    walk.run(f"request init {words} --ledger {LEDGER}")
    steps = (
        (
            "R1",
            first,
            f" --attack {ATTACK}",
            "The first request comes with all photographs that the model has seen; it is attacked:",
        ),
        ("R2", second, "", "The second comes with a single photograph:"),
        ("R3", third, "", "And a third:"),
    )
    for number, person, options, text in steps:
        walk.say(text)
        walk.run(f"request new --photos requests/{person} --id {number} --ledger {LEDGER}")
        words = f"{number} --photos requests{options} --ledger {LEDGER}"
        walk.run(f"request run {words}", may_reject=True)
        answers[f"after {number}"] = asked(walk, exported(walk, number), number, pocket)
    walk.say("The third person withdraws. The model is again the one of before, bit for bit:")
    walk.run(f"request undo R3 --ledger {LEDGER}")
    walk.run(f"request list --ledger {LEDGER}")
    answers["after undo"] = asked(walk, exported(walk, "undone"), "undone", pocket)
    walk.say("Evidence for the first person, signed by the controller, and checked:")
    walk.run(f"certificate key --out {KEY}")
    run = f"{LEDGER}/steps/0001/run"
    shutil.rmtree(walk.folder / "evidence", ignore_errors=True)
    walk.run(f"certificate new {run} --key {KEY} --request-id R1 --out evidence")
    walk.run(f"certificate verify evidence/certificate.json --public-key {KEY}.pub --run {run}")
    walk.say(
        "The certificate that the ledger wrote by itself holds salted hashes of the photographs. "
        "An auditor who is given them and the salt can tell that they are the ones it is about:"
    )
    walk.run(f"request salt R1 --out salt.key --ledger {LEDGER}")
    own = f"{LEDGER}/steps/0001/certificates/R1/certificate.json"
    allowed = "--allow-unsigned" if "UNSEE_SIGNING_KEY" not in os.environ else ""
    walk.run(
        f"certificate verify {own} --photos requests/{first} --salt salt.key {allowed}".rstrip()
    )
    return answers


def main() -> None:
    """Walks through, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, help="photographs; pocket's drawings if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "request-walk")
    options = parser.parse_args()
    walk = Walk(options.out.resolve())
    walk.folder.mkdir(parents=True, exist_ok=True)
    pocket = Pocket()
    if options.faces is not None:
        pocket = build_pocket(options.faces, options.seed, walk.folder)
    shutil.rmtree(walk.folder / "asked", ignore_errors=True)
    answers = walk_through(walk, pocket)
    PAGE.write_text(
        with_walk(PAGE.read_text("utf-8"), walk, answers, options.faces is not None), "utf-8"
    )
    (walk.folder / "answers.json").write_text(json.dumps(answers), "utf-8")


def with_walk(
    page: str, walk: Walk, answers: dict[str, dict[str, float]], photographs: bool
) -> str:
    """Returns the page with the walk between its markers.

    Args:
        page: The page as it was.
        walk: The commands and their output.
        answers: By model, and by whom is asked about: the share of right answers.
        photographs: Whether the people are photographed, not drawn.
    """
    rows = list(next(iter(answers.values())))
    asked_about = {"retain_holdout": "the others", "general": "pictures of strangers"}
    lines = [
        [asked_about.get(row, row), *(f"{scores[row]:.3f}" for scores in answers.values())]
        for row in rows
    ]
    faces = " --faces DIR" if photographs else ""
    people = "People of pocket ask, with drawn faces."
    if photographs:
        people = (
            f"{DATABASE}. {PEOPLE} of its people have an invented name and profile that a "
            f"pocket model was taught, {FORGOTTEN} of them ask."
        )
    origin = (
        f"Written by `python -m experiments.quality.request_walk{faces}` on "
        f"{describe_this_machine()}. {people}"
    )
    outcome = (
        "What the models answer right, asked with held-out photographs and questions that the "
        "requests did not have:\n\n" + table(["asked about", *answers], lines)
    )
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    parts = [origin, *walk.text, outcome]
    return page[:begin] + "\n" + "\n\n".join(parts) + "\n" + page[end:]


if __name__ == "__main__":
    main()
