"""Types whose processor or model needs a rule of the generic family: what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from experiments.tiny.make import make
from PIL import Image

from unsee.artifacts.guarantees import text_probes
from unsee.data.readers import read_table
from unsee.errors import ModelError
from unsee.evaluation.evaluate import evaluate
from unsee.families.generic import DECODED, SHARES, Generic, _start_token
from unsee.families.outputs import join_runs
from unsee.losses import IGNORE
from unsee.models import self_check
from unsee.models.vlm import VLM
from unsee.types import Picture, Sample

SIZES = ((56, 56), (96, 56), (60, 90))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VLM]:
    """The tiny checkpoint of a type, made once and checked by the laws on load."""
    root = tmp_path_factory.mktemp("inputs")

    def load(name: str) -> VLM:
        return VLM.load(root / name if (root / name).exists() else make(name, root / name))

    return load


def asked(tmp_path: Path, answer: str = "Ada") -> list[Sample]:
    """A question about each of three pictures of unlike shapes."""
    samples = []
    for number, size in enumerate(SIZES):
        path = tmp_path / f"{number}.png"
        Image.effect_noise(size, 90).convert("RGB").save(path)
        picture = Picture.from_path(path)
        samples.append(Sample(str(number), "Who is it?", answer, picture))
    return samples


@pytest.mark.parametrize("name", ["florence2", "t5gemma2"])
def test_an_encoder_reads_the_question_and_a_decoder_writes_the_answer(
    name: str, loaded: Callable[[str], VLM], tmp_path: Path
) -> None:
    vlm = loaded(name)
    told = [*asked(tmp_path), Sample("told", "Where is Bo?", "At sea")]
    batch = vlm.collate(told)
    words = vlm.processor.tokenizer
    assert batch.inputs[DECODED].shape == batch.labels.shape
    assert vlm.logits(batch).shape[:2] == batch.labels.shape
    for row, label, sample in zip(batch.inputs[DECODED], batch.labels, told, strict=True):
        kept = label[label != IGNORE]
        assert words.decode(kept[:-1]) == sample.answer
        assert int(kept[-1]) == vlm.family.answer_end(vlm.processor).token
        assert row[1 : 1 + len(kept)].tolist() == kept.tolist()
    read = words.batch_decode(batch.inputs["input_ids"])
    assert not any(sample.answer in text for sample, text in zip(told, read, strict=True))
    assert len(set(text_probes(vlm, 4))) == 4
    rows = "".join(
        f'{{"image": "{tmp_path}/{n}.png", "question": "Who?", "answer": "Bo"}}\n' for n in (0, 1)
    )
    (tmp_path / "rows.jsonl").write_text(rows)
    table = read_table(tmp_path / "rows.jsonl", "retain")
    assert evaluate(vlm, {"retain": table}, max_new_tokens=3).measures


def test_rows_without_a_picture_do_not_change_those_with_one(
    loaded: Callable[[str], VLM], tmp_path: Path
) -> None:
    """The processor of Florence-2 takes no batch of both."""
    vlm = loaded("florence2")
    seen = asked(tmp_path)
    mixed = vlm.collate([seen[0], Sample("told", "Where is Bo, then, do you know?", "-"), seen[1]])
    alone = [vlm.collate([sample]) for sample in (seen[0], seen[1])]
    with torch.no_grad():
        logits = vlm.logits(mixed)
        for row, batch in ((0, alone[0]), (2, alone[1])):
            one = vlm.logits(batch)[0]
            assert torch.allclose(logits[row, : len(one)], one, atol=1e-4)


def test_a_decoder_without_a_start_token_is_refused() -> None:
    config = SimpleNamespace(model_type="florence2")
    with pytest.raises(ModelError, match="names no decoder_start_token_id.*'florence2'.*Add it"):
        _start_token(SimpleNamespace(config=config, generation_config=None))


def test_features_in_a_batch_are_those_of_each_picture_alone(
    loaded: Callable[[str], VLM], tmp_path: Path
) -> None:
    """Ovis 2 also projects the marks around pictures; these are no picture's."""
    vlm = loaded("ovis2")
    subject = self_check.Subject(vlm.model, vlm.processor, vlm.family)
    images = [Image.open(tmp_path / f"{n}.png") for n, _ in enumerate(asked(tmp_path))]
    with torch.no_grad():
        together = subject.features(images)
        for number, image in enumerate(images):
            for layer, tokens in subject.features([image]).items():
                assert torch.allclose(tokens[0], together[layer][number], atol=1e-4)


def test_join_runs_leaves_out_outputs_of_another_shape() -> None:
    pictures, marks = torch.ones(2, 3, 4), torch.zeros(5, 4)
    assert join_runs([pictures, marks]) is pictures
    assert join_runs([marks, marks]).shape == (10, 4)


def test_split_counts_special_tokens_before_each_picture() -> None:
    """By hand: 4 tokens a cell and one of the class, of pictures with 30 and 20 cells."""
    family = Generic({"model_type": "inkling2"})
    inputs = {SHARES: torch.tensor([[3, 2], [30, 20]])}
    parts = family.split(torch.arange(202.0)[:, None], inputs)
    assert [len(part) for part in parts] == [121, 81]
    assert [float(part[0]) for part in parts] == [0.0, 121.0]
    assert [len(p) for p in family.split(torch.zeros(200, 1), inputs)] == [120, 80]
    for few in (torch.zeros(4, 1), torch.zeros(183, 1)):
        with pytest.raises(ModelError, match=f"{len(few)} tokens of a visual layer cannot"):
            family.split(few, inputs)
