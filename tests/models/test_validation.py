"""Checks of a checkpoint's JSON files and of what lies beside its weights."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unsee.errors import ModelError
from unsee.models import templates
from unsee.models.checkpoint import resolve
from unsee.models.validation import check_checkpoint, check_json_files, check_layers
from unsee.models.vlm import VLM


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


FILES = ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("name", [*FILES, "generation_config.json"])
@pytest.mark.parametrize("text", ["5", "null", "[]", '"x"', "{", "[" * 100_000])
def test_check_json_files_refuses_what_is_no_object(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, "utf-8")
    with pytest.raises(ModelError, match=name):
        check_json_files(folder)


@pytest.mark.parametrize("name", FILES)
def test_check_json_files_never_opens_a_pipe(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"{name} is not an ordinary file"):
        check_json_files(folder)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (None, "dtype", "load"),
        (None, "dtype", "nonsense"),
        (None, "model_type", 5),
        (None, "num_labels", 10**9),
        ("text_config", "num_attention_heads", 0),
        ("text_config", "num_attention_heads", 7),
        ("text_config", "num_hidden_layers", -1),
        ("text_config", "num_hidden_layers", 10**7),
        ("text_config", "num_hidden_layers", 1000),
        ("vision_config", "hidden_size", 10**9),
        ("vision_config", "hidden_size", "32"),
        ("vision_config", "patch_size", 0),
    ],
)
def test_checks_refuse_impossible_values(
    folder: Path, section: str | None, key: str, value: Any
) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    place = config if section is None else config[section]
    place[key] = value
    place.pop("head_dim", None)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match=key):
        check_layers(folder, check_json_files(folder))


@pytest.mark.parametrize("side", [0, -1, 100_000, "24"])
def test_check_json_files_refuses_impossible_picture_sizes(folder: Path, side: Any) -> None:
    path = folder / "processor_config.json"
    content = json.loads(path.read_text("utf-8"))
    content["image_processor"]["crop_size"] = {"height": side, "width": 24}
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(ModelError, match=r"processor_config\.json says crop_size\.height"):
        check_json_files(folder)


def test_resolve_refuses_an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match=r"an adapter .*merge_and_unload"):
        resolve(folder)


NESTED = "{% for a in range(9999) %}" * 4 + "{% endfor %}" * 4


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (NESTED, "is not rendered in 1 seconds"),
        ("{{ 'a' * 10**10 }}", "writes a text that is too long"),
        ("{% for a in range(99999) %}{{ 'a' * 99 }}{% endfor %}", "a text that is too long"),
        ("{{ messages", "is not valid"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        (["x"], "is not text"),
        ({"default": 5}, "is not text"),
    ],
)
@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json"])
def test_check_checkpoint_refuses_templates_over_the_limits(
    folder: Path, name: str, template: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "CPU_SECONDS", 1)
    path = folder / name
    if path.suffix == ".json":
        content = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(content | {"chat_template": template}), "utf-8")
    elif isinstance(template, str):
        path.write_text(template, "utf-8")
    else:
        pytest.skip("a text file holds text")
    with pytest.raises(ModelError, match=f"{name}.* {reason}"):
        check_checkpoint(folder)


def test_check_checkpoint_renders_a_template_once(folder: Path) -> None:
    templates._rendered.clear()
    check_checkpoint(folder)
    rendered = set(templates._rendered)
    assert len(rendered) == 1
    check_checkpoint(folder)
    assert templates._rendered == rendered


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Sets values in a JSON file of a checkpoint; names with dots are nested."""
    content = json.loads((folder / name).read_text("utf-8"))
    for key, value in changes.items():
        place, *rest = key.split("__")
        if rest:
            content[place][rest[0]] = value
        else:
            content[place] = value
    (folder / name).write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("visual_only", [False, True])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text_config__num_hidden_layers": 1}, "has 1 layers, and the weights hold more"),
        ({"vision_config__num_hidden_layers": 1}, "has 1 layers, and the weights hold more"),
        (
            {"text_config__num_hidden_layers": 3},
            "config.json asks for, first model.language_model.layers.2",
        ),
        ({"text_config__num_hidden_layers": 0}, "num_hidden_layers"),
        ({"text_config__intermediate_size": 48}, "of another shape"),
        ({"vision_config__intermediate_size": 48}, "of another shape"),
        ({"image_token_index": 3}, r"processor writes <image>, whose id is 4"),
        ({"image_token_index": 99}, r"image_token_index = 99; .* such as 4 \(<image>\)"),
        ({"image_token_index": "4"}, "image_token_index = 4"),
    ],
)
def test_load_refuses_a_configuration_of_another_model(
    folder: Path, change: dict[str, Any], reason: str, visual_only: bool
) -> None:
    edit(folder, "config.json", **change)
    with pytest.raises(ModelError, match=reason):
        VLM.load(folder, visual_only=visual_only)


@pytest.mark.parametrize("part", ["language_model", "vision_tower"])
@pytest.mark.parametrize("kind", ["integers", "missing"])
@pytest.mark.parametrize("visual_only", [False, True])
def test_load_refuses_missing_and_integer_weights(
    folder: Path, part: str, kind: str, visual_only: bool
) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(n for n in sorted(tensors) if part in n)
    if kind == "missing":
        del tensors[name]
    else:
        tensors[name] = tensors[name].to(torch.int32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="missing" if kind == "missing" else "stored as I32"):
        VLM.load(folder, visual_only=visual_only)


def test_load_compares_shards_with_the_configuration(folder: Path) -> None:
    VLM.load(folder).model.save_pretrained(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("*.safetensors"))) > 1
    VLM.load(folder)
    edit(folder, "config.json", text_config__intermediate_size=48)
    with pytest.raises(ModelError, match="of another shape than config.json says"):
        VLM.load(folder)


def test_load_refuses_a_template_that_raises(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no pictures') }}", "utf-8")
    with pytest.raises(ModelError, match=r"cannot render a question with an answer \(no pictures"):
        VLM.load(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_check_json_files_refuses_switches_of_other_types(folder: Path, name: str) -> None:
    edit(folder, name, output_hidden_states="/dev/zero")
    with pytest.raises(ModelError, match=f"{name} says output_hidden_states = /dev/zero"):
        check_json_files(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("value", [10**30, -2, 1.5, "x", True, [[]], [3, 10**30], {"a": 3}])
def test_check_json_files_refuses_ids_of_tokens_that_are_none(
    folder: Path, name: str, value: Any
) -> None:
    edit(folder, name, eos_token_id=value)
    with pytest.raises(ModelError, match=rf"{name} says eos_token_id = .*allowed: ids of tokens"):
        check_json_files(folder)


@pytest.mark.parametrize("value", [None, -1, 3, [3, 5], []])
def test_check_json_files_takes_ids_of_tokens(folder: Path, value: Any) -> None:
    edit(folder, "generation_config.json", eos_token_id=value)
    check_json_files(folder)
