"""Laws that every image encoder must satisfy, on a tiny checkpoint of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from support.encoders import ENCODER_RECIPES, TIMM_SIZES, make_encoder, timm_encoder
from unsee.artifacts.guarantees import SENTENCES, text_probes
from unsee.errors import ModelError
from unsee.families import ENCODERS, family_of, is_encoder
from unsee.families.encoders.network import Network
from unsee.features.capture import picture_features
from unsee.features.pooled import TOKENS, pooled_features
from unsee.methods.vkd import VKD
from unsee.models.checkpoint import peek_config
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data, Picture, Sample


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny checkpoint of a model type, built once."""
    root = tmp_path_factory.mktemp("encoders")
    return lambda n: root / n if (root / n).exists() else make_encoder(n, root / n)


@pytest.fixture(params=list(ENCODER_RECIPES))
def vlm(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> VLM:
    """A model type's tiny encoder."""
    if request.param == "timm_wrapper":
        pytest.importorskip("timm")
    return VLM.load(folders(request.param))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    """Noise in three shapes."""
    folder, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    found = []
    for width, height in ((28, 28), (56, 28), (30, 70)):
        path = folder / f"{width}x{height}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        found.append(Picture.from_path(path))
    return found


def embedded(vlm: VLM, pictures: list[Picture]) -> np.ndarray:
    return pooled_features(vlm, pictures, ())[TOKENS]


def test_every_model_type_has_a_tiny_recipe() -> None:
    # Networks of the user's own have no configuration: tests/cli/test_unlearn_network.py.
    others = {t for name, kind in ENCODERS.items() if name != "module" for t in kind.model_types}
    assert set(ENCODER_RECIPES) == others
    assert {family_of(name).name for name in ENCODER_RECIPES} == set(ENCODERS.names()) - {"module"}
    assert is_encoder("clip")
    assert not is_encoder("llava")


def test_parts_are_disjoint_and_cover_the_model(vlm: VLM) -> None:
    parts = [set(vlm.parameters(p)) for p in ("encoder", "projector", "language")]
    assert parts[0]
    # Which modules make the embedding of a network of any architecture is not known.
    assert bool(parts[1]) != isinstance(vlm.family, Network)
    assert sum(len(p) for p in parts) == len(set.union(*parts))
    assert set.union(*parts) == {n for n, _ in vlm.model.named_parameters()}


def test_embedding_depends_on_the_picture_and_not_on_the_batch(
    vlm: VLM, pictures: list[Picture]
) -> None:
    together = embedded(vlm, pictures)
    assert together.ndim == 2
    assert np.abs(together[0] - together[1]).max() > 1e-3
    alone = np.concatenate([embedded(vlm, [picture]) for picture in pictures])
    assert np.allclose(together, alone, atol=1e-5)


def test_embedding_is_that_of_transformers(vlm: VLM, pictures: list[Picture]) -> None:
    inputs = vlm.collate_pictures([vlm.image(picture) for picture in pictures])
    with torch.no_grad():
        if hasattr(vlm.model, "get_image_features"):
            own = vlm.model.get_image_features(**inputs).pooler_output
        elif isinstance(vlm.family, Network):
            own = vlm.model(**inputs).pooler_output
        else:
            # The class token, in front of the mean of the others.
            own = vlm.model(**inputs).last_hidden_state[:, 0]
    found = embedded(vlm, pictures)[:, : own.shape[1]]
    assert np.allclose(found, own.numpy(), atol=1e-5)


def test_save_then_load_keeps_the_embedding(
    vlm: VLM, pictures: list[Picture], tmp_path: Path
) -> None:
    vlm.save(tmp_path / "model")
    again = VLM.load(tmp_path / "model")
    assert np.array_equal(embedded(vlm, pictures), embedded(again, pictures))
    assert vlm.hash() == again.hash()


def test_visual_part_alone_embeds_alike(vlm: VLM, pictures: list[Picture]) -> None:
    alone = VLM.load(vlm.source, visual_only=True)
    assert np.allclose(embedded(vlm, pictures), embedded(alone, pictures), atol=1e-6)
    assert alone.embed_text(["a photo of Ada."]) is None


def test_mlps_are_linear_modules_of_every_block(vlm: VLM) -> None:
    if isinstance(vlm.family, Network):
        with pytest.raises(ModelError, match="have no MLP that is known. Leave out prune"):
            vlm.family.visual_mlps(vlm.model)
        return
    mlps = vlm.family.visual_mlps(vlm.model)
    assert list(mlps) == [n for n in vlm.family.visual_layers(vlm.model) if n != "projector"]
    for pair in mlps.values():
        inner, outer = (vlm.model.get_submodule(name).weight for name in pair)
        assert inner.shape[1] == outer.shape[0]


def test_texts_are_embedded_by_a_text_tower_alone(vlm: VLM) -> None:
    found = vlm.embed_text(["a photo of Ada.", "a photo of somebody with a far longer name."])
    if not vlm.parameters("language"):
        assert found is None
        assert text_probes(vlm) == ()
        return
    assert found is not None
    alone = vlm.embed_text(["a photo of Ada."])
    assert alone is not None
    assert torch.allclose(found[0], alone[0], atol=1e-5)
    assert len(set(text_probes(vlm))) == len(SENTENCES)


def test_questions_are_refused(vlm: VLM) -> None:
    with pytest.raises(ModelError, match="is an image encoder, which answers no questions"):
        vlm.collate([Sample("a", "Who is this?", "Ada")])


def test_tensor_of_another_shape_is_refused(vlm: VLM, tmp_path: Path) -> None:
    vlm.save(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors: dict[str, Any] = load_file(file)
    name = next(n for n in tensors if "pos" in n or "patch_embeddings.weight" in n)
    save_file({**tensors, name: tensors[name][:, :-1].clone()}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="another shape than config.json says"):
        VLM.load(tmp_path / "model")


def test_checkpoint_without_image_processor_is_refused(vlm: VLM, tmp_path: Path) -> None:
    vlm.save(tmp_path / "model")
    processor = tmp_path / "model" / "preprocessor_config.json"
    if vlm.family.name == "timm":
        # How pictures are prepared stands in its config.json.
        assert not processor.exists()
        return
    processor.unlink()
    with pytest.raises(ModelError, match="its processor cannot be loaded"):
        VLM.load(tmp_path / "model")


def test_text_tower_without_tokenizer_is_refused(vlm: VLM, tmp_path: Path) -> None:
    vlm.save(tmp_path / "model")
    for path in (tmp_path / "model").glob("*token*"):
        path.unlink()
    if not vlm.family.parts.language:
        VLM.load(tmp_path / "model", visual_only=True)
        return
    with pytest.raises(ModelError, match="no tokenizer, so every name would read alike"):
        VLM.load(tmp_path / "model")


def test_classifier_below_a_prefix_rides_along(
    folders: Callable[[str], Path], pictures: list[Picture], tmp_path: Path
) -> None:
    """A published classifier's head is kept as it is, and its encoder is what is loaded."""
    vlm = VLM.load(folders("dinov2"))
    vlm.save(tmp_path / "model")
    folder = tmp_path / "model"
    tensors = {f"dinov2.{n}": t for n, t in load_file(folder / "model.safetensors").items()}
    tensors["classifier.weight"] = torch.ones(3, 64)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Dinov2ForImageClassification"]
    (folder / "config.json").write_text(json.dumps(config))
    head = VLM.load(folder)
    assert np.array_equal(embedded(vlm, pictures), embedded(head, pictures))
    head.save(tmp_path / "again")
    kept = load_file(tmp_path / "again" / "model.safetensors")
    assert kept.keys() == tensors.keys()
    assert torch.equal(kept["classifier.weight"], tensors["classifier.weight"])


def train_a_step(vlm: VLM, pictures: list[Picture]) -> None:
    """Unlearns the first of three people for one step, from the pictures alone."""
    people = ("Ada", "Bo", "Cy")
    samples = [
        Sample(name, "", "", picture, name) for name, picture in zip(people, pictures, strict=True)
    ]
    method = VKD(supervision="features", population="kept")
    trainer = Trainer(TrainingSettings(steps=1, batch_size=2, lr=1e-3))
    method.unlearn(vlm, Data(samples[:1], samples[1:]), trainer)


def test_features_alone_train_the_image_tower_alone(vlm: VLM, pictures: list[Picture]) -> None:
    before = {part: vlm.hash(part) for part in ("visual", "language")}
    train_a_step(vlm, pictures)
    assert vlm.hash("visual") != before["visual"]
    assert vlm.hash("language") == before["language"]


def test_config_is_read_before_the_weights(vlm: VLM, tmp_path: Path) -> None:
    assert is_encoder(peek_config(vlm.source)["model_type"])
    assert peek_config(tmp_path / "nothing") == {}


def test_onnx_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "face.onnx").write_bytes(b"graph")
    with pytest.raises(ModelError, match="an ONNX graph has no weights by name that could be"):
        VLM.load(tmp_path / "face.onnx")


@pytest.mark.parametrize("architecture", list(TIMM_SIZES))
def test_architectures_of_timm_are_trained_and_saved(
    architecture: str, pictures: list[Picture], tmp_path: Path
) -> None:
    """Transformers with blocks in a list, and convolutional networks with stages."""
    pytest.importorskip("timm")
    model, processor = timm_encoder(architecture)
    VLM(model.eval(), processor, family_of("timm_wrapper"), tmp_path).save(tmp_path / "model")
    vlm = VLM.load(tmp_path / "model")
    layers = vlm.family.visual_layers(vlm.model)
    assert len(layers) > 2
    inputs = vlm.collate_pictures([vlm.image(picture) for picture in pictures])
    found = picture_features(vlm, inputs, list(layers))
    assert all(features.dim() == 3 for features in found.values())
    with torch.no_grad():
        assert torch.equal(found["projector"][:, 0], vlm.model(**inputs).pooler_output)
    buffers = {name: buffer.clone() for name, buffer in vlm.model.named_buffers()}
    train_a_step(vlm, pictures)
    # What is no weight is in no patch: running means of normalisation must not move.
    assert all(torch.equal(buffers[n], buffer) for n, buffer in vlm.model.named_buffers())
    vlm.save(tmp_path / "again")
    again = VLM.load(tmp_path / "again")
    assert np.array_equal(embedded(vlm, pictures), embedded(again, pictures))


def test_timm_checkpoint_as_timm_publishes_it_is_read(
    folders: Callable[[str], Path], pictures: list[Picture], tmp_path: Path
) -> None:
    """Without the wrapper's prefix, and with a classifier that is kept as it is."""
    pytest.importorskip("timm")
    vlm = VLM.load(folders("timm_wrapper"))
    vlm.save(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = {n.removeprefix("timm_model."): t for n, t in load_file(file).items()}
    tensors |= {"head.weight": torch.ones(3, 32), "head.bias": torch.zeros(3)}
    save_file(tensors, file, metadata={"format": "pt"})
    head = VLM.load(tmp_path / "model")
    assert np.array_equal(embedded(vlm, pictures), embedded(head, pictures))
    train_a_step(head, pictures)
    head.save(tmp_path / "again")
    kept = load_file(tmp_path / "again" / "model.safetensors")
    assert kept.keys() == tensors.keys()
    assert torch.equal(kept["head.weight"], tensors["head.weight"])


def test_timm_encoder_without_timm_is_refused(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    if find_spec("timm") is not None:
        pytest.skip("timm is installed")
    VLM.load(folders("vit")).save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["model_type"] = "timm_wrapper"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="timm and torchvision are not installed. Type: pip"):
        VLM.load(tmp_path / "model")
