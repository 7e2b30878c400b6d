"""Patched checkpoints in the programs that serve models: transformers, PEFT, vLLM's rules."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from support import tiny
from unsee.artifacts.patch import apply_in_memory, apply_patch, write_patch
from unsee.models.checkpoint import read_header
from unsee.models.vlm import VLM

QUESTION = "Who is this?"

# The base checkpoints: in one file or in shards, in 32 or 16 bits, with or without tied embeddings.
LAYOUTS = {
    "llava": (torch.float32, "60KB"),
    "gemma3": (torch.bfloat16, "5GB"),
    "idefics3": (torch.bfloat16, "40KB"),
}


class Delivery:
    """A base, two stacked patches, and the checkpoint that they give."""

    def __init__(self, name: str, folder: Path) -> None:
        dtype, shard = LAYOUTS[name]
        vlm = VLM.load(tiny.make(name, folder / "made"))
        self.base, self.applied = folder / "base", folder / "applied"
        vlm.model.to(dtype).save_pretrained(self.base, max_shard_size=shard)
        vlm.processor.save_pretrained(self.base)
        model, self.patches = VLM.load(self.base), []
        for number in range(2):
            with torch.no_grad():
                for parameter in list(model.parameters("visual").values())[number::2]:
                    parameter.mul_(1.25)
            write_patch(model, self.base, folder / f"p{number}", patches=self.patches)
            self.patches.append(folder / f"p{number}")
        apply_patch(self.patches, self.base, self.applied)
        pixels = np.random.default_rng(1).integers(0, 256, (56, 56, 3), dtype=np.uint8)
        self.image = Image.fromarray(pixels)

    def inputs(self, processor: Any) -> dict[str, Any]:
        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        chat = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return dict(processor(text=text, images=[self.image], return_tensors="pt"))


@pytest.fixture(scope="module", params=list(LAYOUTS))
def delivery(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Delivery:
    return Delivery(request.param, tmp_path_factory.mktemp("deploy"))


@torch.no_grad()
def test_from_pretrained_gives_the_logits_of_the_patches_in_memory(delivery: Delivery) -> None:
    vlm = VLM.load(delivery.base)
    plain = vlm.model(**delivery.inputs(vlm.processor)).logits
    apply_in_memory(delivery.patches, vlm)
    processor = AutoProcessor.from_pretrained(delivery.applied)
    served, info = AutoModelForImageTextToText.from_pretrained(
        delivery.applied, dtype="auto", output_loading_info=True
    )
    assert not any(info.values())
    assert served.dtype == vlm.model.dtype
    inputs = delivery.inputs(processor)
    logits = served.eval()(**inputs).logits
    assert torch.equal(logits, vlm.model(**inputs).logits)
    assert not torch.equal(logits, plain)


def test_pipeline_serves_the_patched_checkpoint(delivery: Delivery) -> None:
    vlm = VLM.load(delivery.base)
    apply_in_memory(delivery.patches, vlm)
    inputs = delivery.inputs(vlm.processor)
    with torch.no_grad():
        tokens = vlm.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    count = inputs["input_ids"].shape[1]
    expected = vlm.processor.decode(tokens[0, count:], skip_special_tokens=True)
    serve = pipeline("image-text-to-text", model=str(delivery.applied), dtype="auto", device="cpu")
    content = [{"type": "image", "image": delivery.image}, {"type": "text", "text": QUESTION}]
    (answer,) = serve(
        text=[{"role": "user", "content": content}],
        return_full_text=False,
        generate_kwargs={"max_new_tokens": 5, "do_sample": False},
    )
    assert answer["generated_text"] == expected


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_adapters_are_put_on_the_patched_checkpoint(
    delivery: Delivery, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    base = AutoModelForImageTextToText.from_pretrained(delivery.applied, dtype="auto").eval()
    config = LoraConfig(r=2, target_modules=r".*(language_model|text_model).*\.(q_proj|v_proj)")
    adapted = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    adapted.save_pretrained(tmp_path / "adapter")
    again = AutoModelForImageTextToText.from_pretrained(delivery.applied, dtype="auto").eval()
    inputs = delivery.inputs(AutoProcessor.from_pretrained(delivery.applied))
    with torch.no_grad():
        plain = again(**inputs).logits
        loaded = PeftModel.from_pretrained(again, tmp_path / "adapter").eval()
        assert torch.equal(loaded(**inputs).logits, adapted.eval()(**inputs).logits)
        assert not torch.equal(loaded(**inputs).logits, plain)


def test_files_are_as_vllm_loads_them(delivery: Delivery) -> None:
    """Its loader takes every *.safetensors of the folder, less those that the index lacks.

    vLLM itself is not run: the names, dtypes, shapes and configuration that it reads are compared
    with those of the base.
    """
    files = {p.name for p in delivery.applied.iterdir()}
    weights = sorted(fnmatch.filter(files, "*.safetensors"))
    assert weights == sorted(p.name for p in delivery.base.glob("*.safetensors"))
    assert not fnmatch.filter(files, "*.bin") + fnmatch.filter(files, "*.pt")
    index = "model.safetensors.index.json"
    if len(weights) > 1:
        placed = json.loads((delivery.applied / index).read_text())["weight_map"]
        assert set(placed.values()) == set(weights)
        for name, file in placed.items():
            assert name in read_header(delivery.applied / file)
    for name in weights:
        assert read_header(delivery.applied / name) == read_header(delivery.base / name)
    read = [p.name for p in delivery.base.iterdir() if p.suffix in (".json", ".jinja")]
    for name in read:
        assert (delivery.applied / name).read_bytes() == (delivery.base / name).read_bytes()
    added = files - {p.name for p in delivery.base.iterdir()}
    assert added == {"README.md", "unsee_lineage.json"}
