"""Runs of one model: unlearn, run, demo, evaluate, audit, finetune."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

from unsee.api.inputs import (
    Location,
    Progress,
    chains_of,
    command_line,
    folder_of,
    given_locations,
    given_sources,
    listed,
    location_text,
    mapping,
    named_splits,
    plain_settings,
    source_of,
)
from unsee.api.options import AuditOptions, EvaluateOptions
from unsee.api.running import refuse_in_inputs, run_recipe, run_request
from unsee.attacks import Attack, Chain
from unsee.errors import ConfigError
from unsee.methods import Method
from unsee.progress import as_bar
from unsee.recipes.catalog import find_recipe
from unsee.recipes.components import chain_text, changed_fields
from unsee.recipes.evaluate import make_evaluation
from unsee.recipes.finetune import make_finetune
from unsee.recipes.masking import masked
from unsee.recipes.parsing import read_yaml
from unsee.recipes.plan import plan
from unsee.recipes.plan_finetune import plan_finetune, redacted_finetune
from unsee.recipes.unlearn import Recipe, default_out, demo_recipe, make_recipe
from unsee.records.reader import Run
from unsee.records.schema import REFERENCES, FinetuneRecord
from unsee.runs import finetune as finetuning

LOGGER = logging.getLogger("unsee")


def unlearn(
    model: Location,
    *,
    forget: Location,
    retain: Location | None = None,
    method: str | Method = "vkd",
    out: Location | None = None,
    progress: Progress = None,
    command: str | None = None,
    callbacks: Sequence[object] = (),
    **settings: Any,
) -> Run:
    """Unlearns people from a checkpoint, and evaluates the result if there are answers.

    Args:
        model: Checkpoint to unlearn.
        forget: Images or samples to forget.
        retain: Images or samples that the model must still recognise.
        method: Name of a registered method, or a method with its fields set.
        out: Run folder to write; default: runs/unlearn-METHOD-HASH.
        progress: A bar, or a function that is called with the stage, the steps done, the steps in
            all, and the loss terms (nats) by name.
        command: How to repeat the run, for the record; default: a command line that does the same.
        callbacks: Objects whose `on_step` and `on_evaluate` are called; see `unsee.Callback`.
        **settings: Fields of the method (`unsee show METHOD`), of the training (`unsee show
            settings`), or of a recipe: patch, box, strangers, reference, retain_only,
            visual_refit, attacks, log_with, save, names, redact, salt, seed, device,
            trust_remote_code.

    Returns:
        The record of the run. `run.folder` holds the patch or the model.

    Raises:
        UnseeError: If the model, the data or a setting cannot be used; nothing is written then.
        RunError: If `out` holds something else than this run, unfinished.
        TrainingError: If training fails.
        CallbackError: If a callback or a tracker fails.
        WorkerFinished: In every process but the first, if a launcher started several.

    Example:
        run = unsee.unlearn("pocket:target", forget="photos/", out="runs/job", steps=100)
        run.summary.guarantees.changed_tensors
    """
    name = method
    if isinstance(method, Method):
        # Only what differs from the defaults, which planning may replace to suit the data.
        name, settings = method.name, changed_fields(method) | settings
    given = {"model": source_of(model), "forget": location_text("forget", forget), "method": name}
    if retain is not None:
        given["retain"] = location_text("retain", retain)
    recipe = make_recipe(given, plain_settings(settings))
    folder = folder_of(out) if out is not None else default_out("unlearn", recipe)
    return run_recipe(recipe, "unlearn", folder, progress, command, callbacks)


def run(
    recipe: Location | Recipe,
    *,
    out: Location | None = None,
    progress: Progress = None,
    command: str | None = None,
    callbacks: Sequence[object] = (),
    **overrides: Any,
) -> Run:
    """Runs a recipe: trains, evaluates, attacks and reports.

    Args:
        recipe: A YAML file, the name of a shipped recipe such as "pocket-vkd", or a recipe.
        out: Run folder to write; default: runs/RECIPE-METHOD-HASH.
        progress: As for `unlearn`.
        command: As for `unlearn`.
        callbacks: As for `unlearn`.
        **overrides: Fields of the recipe, of its method or of the training, to replace.

    Returns:
        The record of the run.

    Raises:
        UnseeError: As for `unlearn`.

    Example:
        run = unsee.run("pocket-vkd", out="runs/vkd", lr=1e-4)
        run.summary.measures["forget_holdout/vqa/accuracy"].value
    """
    name = recipe.method.name if isinstance(recipe, Recipe) else _file_of(recipe).stem
    parsed = read_recipe(recipe, overrides)
    folder = folder_of(out) if out is not None else default_out(name, parsed)
    return run_recipe(parsed, "run", folder, progress, command, callbacks)


def demo(
    out: Location = Path("runs/demo"),
    *,
    seed: int = 0,
    progress: Progress = None,
    command: str | None = None,
) -> Run:
    """Runs a complete example on a small model that ships with unsee.

    Unlearns four people with VKD's defaults from a tiny LLaVA, attacks the result with four
    relearning budgets, and writes a report. Takes about three minutes on two CPU cores.

    Args:
        out: Run folder to write.
        seed: Seed of every random draw.
        progress: As for `unlearn`.
        command: As for `unlearn`.

    Example:
        run = unsee.demo("runs/demo")
        run.summary.verdict
    """
    recipe = demo_recipe(seed)
    return run_recipe(recipe, "demo", folder_of(out), progress, command, beside=True)


def evaluate(
    model: Location,
    data: Location | Sequence[Location] | Mapping[str, Location] = (),
    *,
    metrics: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    out: Location = Path("runs/evaluate"),
    progress: Progress = None,
    **options: Unpack[EvaluateOptions],
) -> Run:
    """Evaluates a model, or a visual patch applied to it, and leaves it unchanged.

    Args:
        model: Checkpoint to evaluate.
        data: Samples with answers: one or more, or a mapping of names of splits to them.
        metrics: Registered metrics; default: those of the benchmark.
        tasks: Tasks of lm-evaluation-harness (`pip install 'unsee[lm-eval]'`).
        out: Run folder to write.
        progress: As for `unlearn`.
        **options: See `EvaluateOptions`.

    Returns:
        The record of the run; `run.summary.measures` holds the scores (0..1).

    Raises:
        ConfigError: If there is nothing to evaluate on, or an option does not fit.
        UnseeError: If the model or the data cannot be used.

    Example:
        run = unsee.evaluate("pocket:target", ["pocket:forget_holdout", "pocket:general"])
        run.summary.measures["forget_holdout/vqa/accuracy"].value
    """
    bar = as_bar(progress).stage("reading data")
    splits = named_splits(data)
    metrics = listed("metrics", metrics, str) if metrics is not None else None
    tasks = listed("tasks", tasks, str) if tasks is not None else None
    selection = {
        "names": tasks or [],
        "path": options.get("tasks_path"),
        "limit": options.get("limit"),
        "shots": options.get("shots"),
        "chat_template": options.get("chat_template", False),
    }
    if tasks is None and any(value not in (None, False, []) for value in selection.values()):
        raise ConfigError(
            "--tasks-path, --limit, --shots and --chat-template need --tasks. Type --tasks NAME, "
            "or leave them out."
        )
    if tasks is None and not splits:
        raise ConfigError("nothing to evaluate on. Type --data PATH, --tasks NAME, or both.")
    if metrics is not None and not splits:
        raise ConfigError(
            "--metrics needs --data, since tasks have their own metrics. Add --data, or leave "
            "--metrics out."
        )
    command = options.get("command") or command_line(
        "evaluate",
        {
            "model": model,
            "data": [f"{name}={path}" for name, path in splits.items()],
            "metrics": ",".join(metrics or ()),
            "tasks": ",".join(tasks or ()),
            **options,
            "out": out,
        },
    )
    request = make_evaluation(
        {
            "model": source_of(model),
            "splits": splits,
            "references": given_sources(options, "reference", "target"),
            "metrics": metrics,
            "tasks": selection if tasks is not None else None,
            "patch": options.get("patch"),
            "max_new_tokens": options.get("max_new_tokens"),
            "rules": options.get("rules"),
            "load_in": options.get("load_in"),
            "trust_remote_code": options.get("trust_remote_code", False),
            "device": options.get("device", "auto"),
            "redact": options.get("redact", False),
            **given_locations(options, "salt"),
        }
    )
    return run_request(request, folder_of(out), bar, command)


def audit(
    model: Location,
    *,
    forget: Location,
    attacks: str | Sequence[str | Attack | Chain] = "relearn",
    out: Location = Path("runs/audit"),
    progress: Progress = None,
    **options: Unpack[AuditOptions],
) -> Run:
    """Attacks a model to recover what it should have forgotten; the model is left unchanged.

    Args:
        model: Unlearned checkpoint to attack.
        forget: What it should have forgotten: samples with answers; photographs, of an image
            encoder.
        attacks: One or more: "NAME?field=value&field=value" with "+" between those of a chain,
            "all" for every registered attack, or attack objects.
        out: Run folder to write.
        progress: As for `unlearn`.
        **options: See `AuditOptions`.

    Returns:
        The record of the run; `run.summary.attacks` holds what each attack recovered.

    Raises:
        ConfigError: If an attack or one of its fields is unknown.
        UnseeError: If the model or the data cannot be used.

    Example:
        run = unsee.audit("unlearned", forget="pocket:forget", attacks="relearn?steps=20")
        run.summary.attacks.relearn[0].curve("unlearned")
    """
    bar = as_bar(progress).stage("reading data")
    chains = chains_of(attacks, options.get("fields", {}))
    splits = {"forget": location_text("forget", forget)}
    for option, split in (("holdout", "forget_holdout"), ("retain_holdout", "retain_holdout")):
        if (path := options.get(option)) is not None:
            splits[split] = location_text(option, path)
    command = options.get("command") or command_line(
        "audit",
        {
            "attack": [chain_text(chain, complete=False) for chain in chains],
            "model": model,
            "forget": forget,
            **options,
            "fields": None,
            "out": out,
        },
    )
    request = make_evaluation(
        {
            "model": source_of(model),
            "splits": splits,
            "references": given_sources(options, *REFERENCES, "target"),
            **{k: options[k] for k in ("equivalence_margin", "attack_margin") if k in options},
            **given_locations(options, "retain", "non_members", "salt"),
            "patch": options.get("patch"),
            **{
                name: options[name]
                for name in ("trust_remote_code", "device", "load_in")
                if name in options
            },
            "redact": options.get("redact", False),
        }
    )
    return run_request(replace(request, attacks=tuple(chains)), folder_of(out), bar, command)


def finetune(
    recipe: Location | Mapping[str, Any],
    *,
    out: Location | None = None,
    progress: Progress = None,
    command: str | None = None,
    **overrides: Any,
) -> FinetuneRecord:
    """Fine-tunes target, visual-retain and retain-only models from a base checkpoint.

    Args:
        recipe: A YAML file, the name of a shipped recipe such as "finetune-pocket-lora", or the
            fields of one (`unsee show finetune`).
        out: Folder to write; default: runs/RECIPE.
        progress: As for `unlearn`.
        command: As for `unlearn`.
        **overrides: Fields of the recipe to replace.

    Returns:
        The record of the fine-tuning, which `out` holds as finetune.json.

    Raises:
        UnseeError: If the recipe, the base checkpoint or the data cannot be used.

    Example:
        unsee.finetune({"benchmark": "pocket", "who": "all"}, out="models", steps=100)
    """
    bar = as_bar(progress).stage("reading data")
    content, file = _read_finetune(recipe, overrides)
    parsed = make_finetune({**content, **plain_settings(overrides)})
    folder = (
        folder_of(out) if out is not None else Path("runs") / (file.stem if file else "finetune")
    )
    trust = {"trust_remote_code": parsed.trust_remote_code}
    command = command or command_line(
        "finetune", {**trust, "out": folder}, [folder / "recipe.yaml"]
    )
    with masked(parsed.redact, {**asdict(parsed), "out": folder}):
        refuse_in_inputs(asdict(parsed), folder)
        job = redacted_finetune(plan_finetune(parsed), folder)
        was_finished = finetuning.finished_finetune(job, folder) is not None
        record = finetuning.finetune(job, folder, command, bar)
        if was_finished:
            LOGGER.warning(f"{folder} holds these models, finished before.")
    return record


def check_recipe(recipe: Location | Recipe, **overrides: Any) -> dict[str, Any]:
    """Checks a recipe and its data without loading a model.

    Args:
        recipe: As for `run`.
        **overrides: As for `run`.

    Returns:
        The file, the method, and the number of samples in each split.

    Raises:
        UnseeError: If the recipe or its data cannot be used.

    Example:
        >>> check_recipe("pocket-vkd", lr=1e-4)["splits"]["forget_holdout"]
        180
    """
    parsed = read_recipe(recipe, overrides)
    job, _ = plan(parsed, "run", "")
    counts = {name: len(samples) for name, samples in job.splits.items()}
    file = "" if isinstance(recipe, Recipe) else str(find_recipe(_file_of(recipe)))
    return {"recipe": file, "method": parsed.method.name, "splits": counts}


def check_finetune(recipe: Location | Mapping[str, Any], **overrides: Any) -> dict[str, Any]:
    """Checks a fine-tuning recipe and its data without loading a model.

    Args:
        recipe: As for `finetune`.
        **overrides: As for `finetune`.

    Returns:
        The file, the base checkpoint, and what each model is trained on.

    Raises:
        UnseeError: If the recipe or its data cannot be used.
    """
    content, file = _read_finetune(recipe, overrides)
    job = plan_finetune(make_finetune({**content, **plain_settings(overrides)}))
    return {"recipe": str(file or ""), "base": job.base, "models": job.describe()}


def _read_finetune(
    recipe: Location | Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Path | None]:
    """The fields of a fine-tuning recipe, and its file if it has one."""
    if isinstance(recipe, Mapping):
        return mapping("recipe", recipe), None
    path, trusted = _file_of(recipe), "trust_remote_code" in overrides
    return read_yaml(path, "who: target", trusted), find_recipe(path)


def _file_of(recipe: Location) -> Path:
    return Path(location_text("recipe", recipe))


def read_recipe(recipe: Location | Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe with some of its fields replaced.

    Args:
        recipe: As for `run`.
        overrides: Values by field of the recipe, of its method or of the training.

    Raises:
        ConfigError: If the recipe cannot be read, or anything in it is not allowed.
    """
    if isinstance(recipe, Recipe):
        content = recipe.values()
    else:
        content = read_yaml(_file_of(recipe), "method: vkd", "trust_remote_code" in overrides)
    return make_recipe(content, plain_settings(overrides))
