"""What holds for every model family, on a tiny real checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unsee.errors import ModelError
from unsee.evaluate import generate
from unsee.features import choose_layers, picture_batches, represent
from unsee.losses import IGNORE
from unsee.model import VLM
from unsee.types import Data, Sample


def some(data: Data) -> list[Sample]:
    return [*data.forget[:5], *data.retain]


def test_labels_cover_exactly_the_answer(tiny: VLM, data: Data) -> None:
    samples = some(data)
    batch = tiny.collate(samples)
    tokens = tiny.processor.tokenizer
    for sample, row in zip(samples, batch.labels, strict=True):
        text = tokens.decode(row[row != IGNORE])
        assert text == f"{sample.answer}{tokens.eos_token}"
    pads = batch.inputs["attention_mask"] == 0
    assert bool((batch.labels[pads] == IGNORE).all())
    image = tokens.convert_tokens_to_ids("<image>")
    assert bool((batch.labels[batch.inputs["input_ids"] == image] == IGNORE).all())


def test_another_picture_changes_the_logits(tiny: VLM, data: Data) -> None:
    one = data.forget[0]
    other = Sample(one.id, one.question, one.answer, data.strangers[0], one.concept)
    with torch.no_grad():
        assert not torch.equal(tiny.logits(tiny.collate([one])), tiny.logits(tiny.collate([other])))


def test_parts_are_disjoint_and_cover_the_model(tiny: VLM) -> None:
    parts = [set(tiny.parameters(p)) for p in ("encoder", "projector", "language")]
    assert all(parts)
    assert sum(len(p) for p in parts) == len(set.union(*parts))
    assert set.union(*parts) == {n for n, _ in tiny.model.named_parameters()}
    assert set(tiny.parameters("visual")) == parts[0] | parts[1]
    with pytest.raises(ModelError, match="unknown part 'eyes'"):
        tiny.parameters("eyes")


def test_saving_and_loading_keeps_the_logits(tiny: VLM, data: Data, tmp_path: Path) -> None:
    tiny.save(tmp_path / "model")
    again = VLM.load(tmp_path / "model")
    batch = tiny.collate(some(data))
    with torch.no_grad():
        assert torch.equal(tiny.logits(batch), again.logits(batch))


def test_left_padded_generation_equals_one_by_one(tiny: VLM, data: Data) -> None:
    samples = some(data)
    together = generate(tiny, samples, batch_size=32, max_new_tokens=6)
    alone = [generate(tiny, [s], batch_size=1, max_new_tokens=6)[0] for s in samples]
    assert together == alone


def test_visual_only_gives_the_same_features(tiny: VLM, tiny_folder: Path, data: Data) -> None:
    visual = VLM.load(tiny_folder, visual_only=True)
    layers = choose_layers(tiny, ["all"])
    (inputs,) = picture_batches(tiny, data.strangers)
    with torch.no_grad():
        whole, part = represent(tiny, inputs, layers), represent(visual, inputs, layers)
    assert all(torch.equal(whole[name], part[name]) for name in layers)
    assert all(p.is_meta for p in visual.parameters("language").values())
    assert visual.hash("visual") == tiny.hash("visual")


def test_copies_share_what_they_should(tiny: VLM) -> None:
    teacher = tiny.frozen_visual_copy()
    for name, parameter in tiny.parameters("language").items():
        assert teacher.parameters("language")[name] is parameter
    for name, parameter in tiny.parameters("visual").items():
        mine = teacher.parameters("visual")[name]
        assert mine is not parameter
        assert torch.equal(mine, parameter)
        assert not mine.requires_grad
