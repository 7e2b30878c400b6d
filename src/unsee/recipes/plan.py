"""From a recipe to a job: reads the data, decides what is scored, and finds the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from unsee.artifacts.model_card import Kind
from unsee.artifacts.stack import patch_folders
from unsee.attacks import required_data
from unsee.benchmarks import Benchmark, CheckpointRole
from unsee.data.boxes import mark, refuse_whole, separate
from unsee.data.overlaps import overlap_notes, without_copies
from unsee.data.photographs import group_notes
from unsee.data.selection import split_holdout
from unsee.errors import ConfigError, counted
from unsee.families import is_encoder
from unsee.families.width import vision_width
from unsee.models.checkpoint import peek_config
from unsee.recipes.benchmark_defaults import benchmark_fields, held_out, measure_directions
from unsee.recipes.captions import (
    CAPTION_FIELDS,
    captions,
    is_caption,
    require_text_tower,
    without_captions,
)
from unsee.recipes.job import NO_ANSWERS, Job
from unsee.recipes.photographs import hold_out, open_questions, runnable_attacks
from unsee.recipes.sources import make_data, read_samples, shipped_checkpoint, shipped_strangers
from unsee.recipes.specs import Spec
from unsee.recipes.unlearn import Recipe
from unsee.records.schema import REFERENCES
from unsee.types import Data, Sample

# What a user's own table is split into, of what is to be forgotten.
HELD_FORGET = ("forget", "forget_holdout")

# The models of a job, and the checkpoints of a benchmark that they are if a recipe names no other.
REFERENCE_ROLES: Mapping[str, CheckpointRole | None] = {
    "target": "target",
    "reference": "visual_retain",
    "retain_only": "retain_only",
    # `unsee finetune` makes it.
    "visual_refit": None,
}

NO_RETAIN = (
    "no --retain was given: drawn faces that come with the package stand in, and people of whom "
    "nothing is known here may be forgotten as well. Pictures of those whom the model should go on "
    "recognising keep it better."
)


def plan(
    recipe: Recipe,
    kind: str,
    command: str,
    given: Mapping[str, Sequence[Sample]] | None = None,
) -> tuple[Job, list[str]]:
    """Returns a job for a recipe, and notes for the user.

    Args:
        recipe: The recipe.
        kind: The kind of run that the record names, such as "unlearn".
        command: The command that repeats the run.
        given: Samples that were read already, by the recipe's key of the user's own data: "forget",
            "retain" or "strangers".

    Raises:
        UnseeError: If a recipe, a file or a sample cannot be used; nothing is written then.
    """
    if recipe.forget is None:
        return _benchmark(recipe, kind, command)
    return _own(recipe, kind, command, given or {})


def _benchmark(recipe: Recipe, kind: str, command: str) -> tuple[Job, list[str]]:
    """A benchmark's own sets, references and measures."""
    benchmark = Spec(
        recipe.benchmark, "", recipe.data, recipe.forget_ratio, recipe.shots, skew=recipe.skew
    ).open()
    if recipe.model is None and benchmark.checkpoint("target") is None:
        raise ConfigError(
            f"which model? {recipe.benchmark} comes with none. Give a checkpoint that was taught "
            "its people: model: DIR_OR_ID in the recipe."
        )
    given = {
        "target": recipe.model,
        "reference": recipe.reference,
        "retain_only": recipe.retain_only,
        "visual_refit": recipe.visual_refit,
    }
    references: dict[str, str | Path] = {}
    for name, role in REFERENCE_ROLES.items():
        own = benchmark.checkpoint(role) if role is not None else None
        typed = given[name]
        checkpoint = shipped_checkpoint(typed) if typed else own
        if checkpoint:
            references[name] = checkpoint
    splits = {split: list(benchmark.load(split)) for split in benchmark.splits}
    data = benchmark.data()
    notes: list[str] = []
    config = peek_config(references["target"])
    encoder = is_encoder(config.get("model_type"))
    compared: dict[str, Any] = {}
    if encoder:
        require_text_tower(references["target"])
        splits = {name: [s for s in some if is_caption(s)] for name, some in splits.items()}
        splits = {name: some for name, some in splits.items() if some}
        for name in benchmark.forgetting[:1]:
            captions(splits.get(name, ()), name, recipe.benchmark)
        data = without_captions(data)
        recipe, notes = _adapted(recipe, data, encoder)
        _refuse_questions(recipe, answers=False)
        compared = dict(CAPTION_FIELDS)
    if recipe.attacks and "forget_holdout" not in splits:
        data, held = held_out(benchmark, data, splits, recipe.seed, notes)
        splits |= held
    if encoder:
        recipe, compared["attacks_left_out"] = _with_runnable(recipe, splits, encoder, notes)
    else:
        method, why = recipe.method.replace_missing(data, recipe.set)
        recipe, rate_notes = _scaled(replace(recipe, method=method), config, data)
        notes += [*why, *rate_notes]
    job = Job(
        kind=kind,
        command=command,
        recipe=recipe.text(command),
        model=references["target"],
        data=data if data.strangers else replace(data, strangers=shipped_strangers()),
        non_members=benchmark.non_members()
        if "non_members" in required_data(recipe.attacks)
        else (),
        splits=splits,
        references=references,
        better=measure_directions(splits, benchmark.forgetting, benchmark),
        forgetting=[name for name in splits if name in benchmark.forgetting],
        **(benchmark_fields(benchmark, splits, recipe.rules) | compared | _recipe_fields(recipe)),
    )
    return job, notes


def _own(
    recipe: Recipe, kind: str, command: str, given: Mapping[str, Sequence[Sample]]
) -> tuple[Job, list[str]]:
    """The user's own checkpoint and pictures."""
    if recipe.model is None:
        raise ConfigError(
            "which model? forget= names data of your own, which comes with none. Type --model "
            "DIR_OR_ID, or model: DIR_OR_ID in a recipe."
        )
    model = shipped_checkpoint(recipe.model)
    config = peek_config(model)
    encoder = is_encoder(config.get("model_type"))
    recipe, data, unknown, notes = _own_data(recipe, given, encoder)
    if not encoder:
        recipe, rate_notes = _scaled(recipe, config, data)
        notes += rate_notes
    answered = [s for s in (*data.forget, *data.retain) if s.answer]
    answers = bool(answered)
    compared: dict[str, Any] = {}
    if encoder:
        has_captions = any(s.answer for s in data.forget) and all(map(is_caption, answered))
        _refuse_questions(recipe, answers and not has_captions)
        if has_captions:
            require_text_tower(model)
            compared = dict(CAPTION_FIELDS)
    visual_only = not recipe.method.reads_language and not answers and not encoder
    splits: dict[str, list[Sample]] = {}
    photographs: dict[str, Any] = {}
    if not any(s.answer for s in data.forget):
        data = replace(data, forget=without_copies(data.forget))
        data, splits, held_notes = hold_out(data, recipe.holdout_share, recipe.seed)
        notes += held_notes
        recipe, left_out = _with_runnable(recipe, splits, encoder, notes, unknown)
        photographs = {
            "open_questions": () if encoder else open_questions(recipe.ask),
            "encoder": encoder,
            "drawn_strangers": recipe.strangers is None,
            "attacks_left_out": left_out,
            "forgetting": HELD_FORGET,
        }
    else:
        train, held = split_holdout(data.forget, seed=recipe.seed)
        kept, kept_held = split_holdout(data.retain, seed=recipe.seed)
        splits = {
            "forget": train,
            "forget_holdout": held,
            "retain": [s for s in kept if s.answer],
            "retain_holdout": [s for s in kept_held if s.answer],
        }
        splits = {name: samples for name, samples in splits.items() if samples}
        data = Data(train, kept, data.strangers)
        if encoder:
            data = without_captions(data)
            recipe, compared["attacks_left_out"] = _with_runnable(
                recipe, splits, encoder, notes, unknown
            )
    references: dict[str, str | Path] = {"target": model}
    for name in REFERENCES:
        if getattr(recipe, name):
            references[name] = shipped_checkpoint(getattr(recipe, name))
    job = Job(
        kind=kind,
        command=command,
        recipe=recipe.text(command),
        model=model,
        data=data,
        non_members=unknown if "non_members" in required_data(recipe.attacks) else (),
        splits=splits,
        references=references,
        better=measure_directions(splits, HELD_FORGET),
        visual_only=visual_only,
        **({"forgetting": [n for n in splits if n in HELD_FORGET]} | photographs | compared),
        **_recipe_fields(recipe, visual_only),
    )
    return job, notes


def _with_runnable(
    recipe: Recipe,
    splits: Mapping[str, Sequence[Sample]],
    encoder: bool,
    notes: list[str],
    non_members: Sequence[Sample] = (),
) -> tuple[Recipe, dict[str, str]]:
    """The recipe with the attacks that photographs suffice for, and why each other is left out.

    Args:
        recipe: The recipe.
        splits: The held-out samples, by split.
        encoder: Whether the model is an image encoder.
        notes: Notes for the user, to which those about the attacks are added.
        non_members: Samples about people that no model was trained on.
    """
    attacks, left_out, attack_notes = runnable_attacks(recipe.attacks, splits, encoder, non_members)
    notes += attack_notes
    return replace(recipe, attacks=attacks), left_out


def _refuse_questions(recipe: Recipe, answers: bool) -> None:
    """Refuses what has no meaning for an image encoder.

    Raises:
        ConfigError: If the samples have answers, the method reads any, or questions are to be
            asked.
    """
    if answers:
        raise ConfigError(
            f"model {recipe.model}: {NO_ANSWERS}, and these samples have some. Give photographs "
            "alone: a folder with a subfolder for each person; or captions: a table with the "
            "columns image, question, answer, concept, and task with the value caption."
        )
    if recipe.method.reads_language:
        raise ConfigError(
            f"model {recipe.model}: {NO_ANSWERS}, and {recipe.method.name} trains on some. Type "
            "--method vkd, which needs photographs alone."
        )
    if recipe.ask not in ((), ("none",)):
        raise ConfigError(f"ask={list(recipe.ask)}: {NO_ANSWERS}. Leave --ask out.")


def _own_data(
    recipe: Recipe, given: Mapping[str, Sequence[Sample]], encoder: bool
) -> tuple[Recipe, Data, list[Sample], list[str]]:
    """Reads the user's pictures, and adapts the method to them and to the model.

    Args:
        recipe: The recipe.
        given: As in `plan`.
        encoder: Whether the model is an image encoder.

    Returns:
        The recipe, the data, the samples about strangers that were given, and notes for the user.
    """
    opened: dict[Spec, Benchmark] = {}

    def read(role: str, path: str) -> list[Sample]:
        return list(given[role]) if role in given else read_samples(path, role, opened)

    forget = read("forget", recipe.forget or "")
    if recipe.box is not None:
        forget = mark(forget, recipe.box)
    group = forget
    forget, beside = separate(forget)
    retain = read("retain", recipe.retain) if recipe.retain else None
    strangers = read("strangers", recipe.strangers) if recipe.strangers else None
    pictures = [s.picture for s in strangers if s.picture] if strangers is not None else None
    recipe, notes = _adapted(recipe, Data(forget, retain or (), pictures or ()), encoder)
    if pictures is None and retain and "strangers" not in recipe.method.required:
        # Drawn faces are no population to compare photographs with.
        pictures = []
    refuse_whole(group, retain or ())
    data = make_data(forget, retain, pictures)
    notes = [*notes, *overlap_notes(data.forget, data.retain, pictures or ())]
    notes += group_notes(forget)
    if not data.retain:
        stand_ins = [
            Sample(f"stranger/{i}", "", "", picture) for i, picture in enumerate(data.strangers)
        ]
        data = Data(data.forget, stand_ins, data.strangers)
        notes = [*notes, NO_RETAIN]
    if beside:
        notes.append(
            f"{counted(len(beside), 'picture')} of what group photographs show beside the marked "
            f"faces {'is' if len(beside) == 1 else 'are'} kept as the model sees "
            f"{'it' if len(beside) == 1 else 'them'}."
        )
    return recipe, replace(data, retain=(*data.retain, *beside)), strangers or [], notes


def _adapted(recipe: Recipe, data: Data, encoder: bool) -> tuple[Recipe, list[str]]:
    """The recipe with its method adapted to the data and the model, and notes for the user.

    Args:
        recipe: The recipe, whose own settings stay.
        data: The data.
        encoder: Whether the model is an image encoder.

    Raises:
        ConfigError: If the method is to change the language part of an image encoder.
    """
    suits: dict[str, Any] = {}
    method, training = recipe.method, recipe.training
    if encoder and method.for_encoders and method.changes_language:
        field = method.language_field
        raise ConfigError(
            f"model {recipe.model}: an image encoder has no language model, which {method.name} "
            f"with {field}={getattr(method, field)} changes. Type --set {field}=visual."
        )
    if encoder:
        # Captions are scored, and not trained on.
        data = without_captions(data)
        suits = {k: v for k, v in method.for_encoders.items() if k not in recipe.fixed}
        own = {field.name for field in fields(training)}
        training = replace(training, **{k: v for k, v in suits.items() if k in own})
        method = replace(method, **{k: v for k, v in suits.items() if k not in own})
    method, notes = method.adapt_to(data, {*recipe.set, *suits})
    if suits:
        # What suits encoders may be missing in the data as well.
        method, why = method.replace_missing(data, recipe.set)
        notes = [*notes, *why]
        named = ", ".join(f"{name}={value}" for name, value in suits.items())
        notes = [*notes, f"this is an image encoder: {named}, if not --set otherwise."]
    return replace(recipe, method=method, training=training), list(notes)


def _scaled(recipe: Recipe, config: Mapping[str, Any], data: Data) -> tuple[Recipe, list[str]]:
    """The recipe with a default learning rate that suits the model and the data, and a note.

    AdamW moves every weight by about the learning rate, and each output of a layer adds as many of
    them as the layer is wide.

    Args:
        recipe: The recipe; a learning rate that it gives stays.
        config: The configuration of the checkpoint to unlearn.
        data: What to forget and what to keep.

    Source: Tensor Programs V, arXiv 2203.03466, table 3: Adam's rate falls as 1 / width.
    """
    if "lr" in recipe.fixed:
        return recipe, []
    known, width = recipe.method.rate_width, vision_width(config)
    share, reasons = recipe.method.rate_share(data), []
    if share < 1:
        reasons.append("so few people to forget")
    if known and width > known:
        share *= known / width
        reasons.append(f"a vision encoder of width {width}")
    if not reasons:
        return recipe, []
    lr = float(f"{recipe.training.lr * share:.2g}")
    note = f"lr={lr:g}, for {' and '.join(reasons)}, if not --set otherwise."
    return replace(recipe, training=replace(recipe.training, lr=lr)), [note]


def _recipe_fields(recipe: Recipe, visual_only: bool = False) -> dict[str, Any]:
    """Fields of a job that come from its recipe."""
    return {
        "method": recipe.method,
        "settings": recipe.training,
        "attacks": recipe.attacks,
        "patches": patch_folders(recipe.patch),
        "save": _save(recipe, visual_only),
        "names": recipe.names,
        "log_with": recipe.log_with.split(",") if recipe.log_with else [],
        "redact": recipe.redact,
        "salt": recipe.salt,
        "trust_remote_code": recipe.trust_remote_code,
        "device": recipe.device,
        "equivalence_margin": recipe.equivalence_margin,
        "attack_margin": recipe.attack_margin,
        "min_headroom": recipe.min_headroom,
        **({"max_new_tokens": recipe.max_new_tokens} if recipe.max_new_tokens else {}),
    }


def _save(recipe: Recipe, visual_only: bool) -> Kind:
    """The kind of artifact to write; refused before training if it cannot be written."""
    method = recipe.method
    if recipe.save == "patch" and method.changes_language:
        field = method.language_field
        raise ConfigError(
            f"save=patch: a visual patch cannot carry what {method.name} with {field}="
            f"{getattr(method, field)} changes. Type --save model, or --set {field}=visual."
        )
    if recipe.save == "adapter" and recipe.training.lora == 0:
        raise ConfigError(
            "save=adapter: only LoRA adapters can be saved as one, and none are trained. Type "
            "--set lora=16, or --save model."
        )
    if recipe.save == "adapter" and method.merges_first_stage:
        field = method.language_field
        raise ConfigError(
            f"save=adapter: what {method.name} with {field}={getattr(method, field)} trains first "
            "is merged into the weights, and the adapter would not have it. Type --save model, or "
            f"--set {field}=visual."
        )
    if recipe.save == "adapter" and recipe.patch:
        raise ConfigError(
            "save=adapter: an adapter is put on the model without patch=. Apply the patches first "
            "(`unsee apply`), and give the checkpoint that it wrote as the model."
        )
    if recipe.save == "model" and visual_only:
        raise ConfigError(
            "save=model: from pictures alone the language model's weights are never read, so only "
            "a patch can be written. Type --save patch, then `unsee apply`."
        )
    return recipe.save or ("model" if method.changes_language else "patch")
