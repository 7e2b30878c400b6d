"""Damaged tiny checkpoints, given to every command that reads one: the law of support/fuzz.py.

A short run by default; `UNSEE_FUZZ=500 pytest tests/fuzz/test_checkpoints.py` makes a long one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.fuzz import cases, check_refusal, command, snapshot
from unsee.artifacts.patch import write_patch
from unsee.models.vlm import VLM
from unsee.types import Data

Rng = random.Random
Json = dict[str, Any]

# Each case runs a whole command.
COUNT = cases(3)

JSONS = (
    *("config.json", "generation_config.json", "processor_config.json", "tokenizer.json"),
    *("tokenizer_config.json", "preprocessor_config.json", "special_tokens_map.json"),
)
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

TEXTS = ["", "5", "null", "[]", '"x"', "{", "{}", "[" * 100_000, '{"a":' * 5000, "NaN", "\ufeff{}"]

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 7, 100_000, 10**7, 10**9, 10**30, 1.5, -0.5, 1e300,
    float("nan"), float("inf"), "", "x", "float16", "load", "save", "nonsense", "x" * 100_000,
    "\x1b[2J", "\x00", "../x", "/dev/zero", [], [0], [[]], [None], ["x"], [1, 2, 3], {}, {"a": {}},
    {"0": 5}, [10**9, 10**9], "\u202e", "relu", "gelu", "linear",
]  # fmt: skip

TEMPLATES: list[Any] = [
    "", "x", "{{ messages", "{% for %}", "{{ 'a' * 10**10 }}", "{{ messages[9].x.y }}",
    "{% for a in range(9999) %}" * 4 + "{% endfor %}" * 4, "{{ raise_exception('no') }}",
    "{% for m in messages %}{{ m.content }}{% endfor %}", "{{ messages.__class__.mro() }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% include 'x' %}", 5, [], ["x"], {"a": 5},
    "{% set x = namespace(t='ab') %}{% for i in range(60) %}{% set x.t = x.t ~ x.t %}{% endfor %}",
]  # fmt: skip


def read(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text("utf-8"))


def write(path: Path, content: Any) -> None:
    """Replaces a JSON file."""
    path.write_text(json.dumps(content), "utf-8")


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value, except the vocabulary's."""
    found: list[tuple[Any, Any]] = []
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        found.append((content, key))
        if isinstance(value, (dict, list)) and key != "vocab":
            found += places(value)
    return found


def replace_text(folder: Path, rng: Rng) -> None:
    """A JSON file is something else."""
    (folder / rng.choice(JSONS)).write_text(rng.choice(TEXTS), "utf-8")


def replace_value(folder: Path, rng: Rng) -> None:
    """A value of a JSON file is another one, or gone."""
    files = [folder / name for name in JSONS if (folder / name).exists()]
    path = rng.choice([folder / "config.json", *files])
    content = read(path)
    for _ in range(rng.choice([1, 1, 1, 3])):
        container, key = rng.choice(places(content) or [(content, "x")])
        if rng.random() < 0.15 and isinstance(container, dict):
            container.pop(key, None)
        else:
            container[key] = rng.choice(VALUES)
    write(path, content)


def add_value(folder: Path, rng: Rng) -> None:
    """A key that transformers knows is added."""
    keys = [
        "num_labels", "id2label", "quantization_config", "auto_map", "architectures", "pad_token",
        "text_config", "vision_config", "torch_dtype", "dtype", "rope_parameters", "head_dim",
        "image_token_index", "num_beams", "max_length", "cache_implementation", "suppress_tokens",
        "stop_strings", "eos_token_id", "extra_special_tokens", "model_max_length", "size",
        "attn_implementation", "tie_word_embeddings", "do_resize", "resample", "rope_scaling",
        "tokenizer_class", "processor_class", "image_processor_type", "truncation", "use_cache",
        "forced_eos_token_id", "min_length", "no_repeat_ngram_size", "layer_types", "use_bfloat16",
    ]  # fmt: skip
    path = folder / rng.choice(["config.json", *JSONS[:5]])
    content = read(path)
    inner = [content, *(v for k, v in content.items() if k.endswith("_config") and v)]
    place = rng.choice([value for value in inner if isinstance(value, dict)])
    place[rng.choice(keys)] = rng.choice(VALUES)
    write(path, content)


def replace_template(folder: Path, rng: Rng) -> None:
    """The chat template is another one, in one of the files that may hold it."""
    template = rng.choice(TEMPLATES)
    name = rng.choice(["chat_template.jinja", "chat_template.json", *JSONS[2:5:2]])
    if name.endswith(".jinja"):
        (folder / name).write_text(str(template), "utf-8")
    else:
        content = read(folder / name) if (folder / name).exists() else {}
        write(folder / name, content | {"chat_template": template})
        if rng.random() < 0.7:
            (folder / "chat_template.jinja").unlink(missing_ok=True)


def damage_bytes(folder: Path, rng: Rng) -> None:
    """A file is truncated or some of its bytes change."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.stat().st_size)
    path = rng.choice([folder / WEIGHTS, *files])
    data = bytearray(path.read_bytes())
    if rng.random() < 0.4:
        data = data[: rng.randrange(len(data))]
    head = rng.choice([16, 4000, len(data)])
    for _ in range(rng.randint(1, 6) if data else 0):
        data[rng.randrange(min(len(data), head))] = rng.randrange(256)
    path.write_bytes(data)


def damage_tensors(folder: Path, rng: Rng) -> None:
    """A tensor is missing, new, renamed, or of another shape, dtype or content."""
    tensors = load_file(folder / WEIGHTS)
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(sorted(tensors))
        tensor = tensors[name]
        kind = rng.randrange(8)
        if kind == 0:
            del tensors[name]
        elif kind == 1:
            tensors[f"{name}.extra"] = torch.zeros(2)
        elif kind == 2:
            tensors[name] = tensor.to(rng.choice([torch.int8, torch.int64, torch.bool]))
        elif kind == 3:
            tensors[name] = tensor.to(rng.choice([torch.float16, torch.bfloat16, torch.float64]))
        elif kind == 4:
            tensors[name] = tensor.flatten()
        elif kind == 5:
            tensors[name] = tensor[: len(tensor) // 2].clone()
        elif kind == 6:
            tensors[name] = torch.full_like(tensor, rng.choice([float("nan"), float("inf"), 1e30]))
        else:
            tensors[name.replace("model", "x")] = tensors.pop(name)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def make_odd_file(folder: Path, rng: Rng) -> None:
    """A file is a pipe, a device, a folder, a link to nowhere, or gone."""
    path = folder / rng.choice([WEIGHTS, *JSONS, "chat_template.jinja"])
    path.unlink(missing_ok=True)
    kind = rng.randrange(6)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        path.symlink_to(folder / "nowhere")
    elif kind == 4:
        path.symlink_to(path)


def make_index(folder: Path, rng: Rng) -> None:
    """An index beside the weights, or in place of them, that does not fit."""
    names = sorted(load_file(folder / WEIGHTS))
    shard = rng.choice(["a.safetensors", "../a.safetensors", "/etc/passwd", "", 5, None, "b"])
    index: Any = {"weight_map": dict.fromkeys(names, shard)}
    kind = rng.randrange(5)
    if kind == 0:
        index = rng.choice([{}, {"weight_map": rng.choice(VALUES)}, [], 5])
    elif kind == 1:
        index["weight_map"].pop(rng.choice(names))
    (folder / WEIGHTS).rename(folder / "a.safetensors")
    write(folder / INDEX, index)


DAMAGES: list[Callable[[Path, Rng], None]] = [
    *(replace_text, replace_value, replace_value, replace_value, add_value, add_value),
    *(replace_template, damage_bytes, damage_tensors, damage_tensors, make_odd_file, make_index),
]


@pytest.fixture(scope="module")
def tables(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Tables of questions to forget and to retain."""
    folder = tmp_path_factory.mktemp("tables")
    paths = folder / "forget.jsonl", folder / "retain.jsonl"
    for path, samples in zip(paths, (data.forget, data.retain), strict=True):
        rows = []
        for sample in [s for s in samples if s.picture is not None][:6:3]:
            assert sample.picture is not None
            row = {"image": sample.picture.source, "question": "Who is this person ?"}
            rows.append({**row, "answer": f"this is {sample.concept}", "concept": sample.concept})
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return paths


@pytest.fixture(scope="module")
def patch(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch of the undamaged checkpoint."""
    vlm = VLM.load(tiny_folder)
    for parameter in vlm.parameters("projector").values():
        parameter.data.add_(0.1)
    folder = tmp_path_factory.mktemp("patch") / "patch"
    write_patch(vlm, tiny_folder, folder)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(0)
def test_commands_refuse_damaged_checkpoints(
    tiny_folder: Path, tables: tuple[Path, Path], patch: Path, tmp_path: Path
) -> None:
    (forget, retain), failures = tables, list[str]()
    start = int(os.environ.get("UNSEE_FUZZ_SEED", "0"))
    for case in range(start, start + COUNT):
        rng = random.Random(case)
        top = tmp_path / f"case{case}"
        model, out = top / "model", top / "out"
        shutil.copytree(tiny_folder, model)
        for damage in rng.sample(DAMAGES, rng.choice([1, 1, 1, 2])):
            # A pipe or device would hold up the next damage.
            if all(path.is_file() for path in model.iterdir()) and (model / WEIGHTS).exists():
                try:
                    damage(model, rng)
                except (ValueError, TypeError, AttributeError, KeyError, OSError):
                    # The second damage may not fit what the first one has left.
                    continue
        commands = commands_with(model, tiny_folder, (forget, retain), patch, out)
        words = rng.choice(list(commands.values()))
        before = snapshot(top)
        try:
            code, message = command(*words)
            check_refusal(code, message, str(model), "sample", "loss term", str(patch))
            after = snapshot(top)
            changed = {p for p in before.keys() | after if before.get(p) != after.get(p)}
            assert all(p == str(top) or Path(p).is_relative_to(out) for p in changed), changed
            assert code == 0 or not out.exists() or words[0] in ("evaluate", "unlearn"), "half"
        except (AssertionError, TimeoutError) as error:
            text = f"case {case}: {words[0]}: {type(error).__name__}: {str(error)[:600]}"
            failures.append(text)
            if log := os.environ.get("UNSEE_FUZZ_LOG"):
                with Path(log).open("a", encoding="utf-8") as file:
                    file.write(f"{text}\n")
        shutil.rmtree(top)
    assert not failures, "\n".join(failures)


def commands_with(
    model: Path, base: Path, tables: tuple[Path, Path], patch: Path, out: Path
) -> dict[str, list[str | Path]]:
    """Every command that reads a checkpoint, by its name."""
    forget, retain = tables
    recipe = write_recipe(model.parent, model, forget, retain)
    one = ["--set", "steps=1", "--set", "batch_size=2", "--device", "cpu"]
    commands: dict[str, list[str | Path]] = {
        "unlearn": ["--model", model, "--forget", forget, "--retain", retain, *one],
        "evaluate": ["--model", model, "--data", retain, "--max-new-tokens", "3"],
        "verify": [base, model, "--probes", "2"],
        "apply": [patch, "--model", model],
        "finetune": [recipe],
    }
    ends = {name: [] if name == "verify" else ["--out", out] for name in commands}
    return {name: [name, *words, *ends[name]] for name, words in commands.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["unlearn", "evaluate", "verify", "apply", "finetune"])
@pytest.mark.parametrize("damage", ["json", "template", "device", "heads"])
def test_every_command_uses_the_same_checks(
    tiny_folder: Path,
    tables: tuple[Path, Path],
    patch: Path,
    tmp_path: Path,
    name: str,
    damage: str,
) -> None:
    model, out = Path(shutil.copytree(tiny_folder, tmp_path / "model")), tmp_path / "out"
    if damage == "json":
        (model / "tokenizer_config.json").write_text("5", "utf-8")
    elif damage == "template":
        (model / "chat_template.jinja").write_text("{{ 'a' * 10**10 }}", "utf-8")
    elif damage == "device":
        (model / "tokenizer.json").unlink()
        (model / "tokenizer.json").symlink_to("/dev/zero")
    else:
        config = read(model / "config.json")
        config["text_config"] |= {"num_attention_heads": 7, "head_dim": None}
        write(model / "config.json", config)
    code, message = command(*commands_with(model, tiny_folder, tables, patch, out)[name])
    assert code == 2, message
    file = {"json": "tokenizer_config.json", "device": "tokenizer.json", "heads": "config.json"}
    check_refusal(code, message, file.get(damage, "chat_template.jinja"))
    assert not out.exists()


def write_recipe(top: Path, model: Path, forget: Path, retain: Path) -> Path:
    """A recipe that finetunes the model for one step."""
    path = top / "finetune.yaml"
    path.write_text(
        f"who: target\nmodel: {model}\nforget: {forget}\nretain: {retain}\nsteps: 1\n"
        "batch_size: 2\ndevice: cpu\n",
        "utf-8",
    )
    return path
