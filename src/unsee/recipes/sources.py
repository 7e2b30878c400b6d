"""Samples and checkpoints as they are typed: folders, tables, and splits of benchmarks."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unsee.artifacts.pseudonyms import PSEUDONYM
from unsee.data.folders import ARCHIVES, PICTURES
from unsee.data.readers import read_folder, read_table
from unsee.data.selection import check_disjoint
from unsee.data.tables import SUFFIXES
from unsee.errors import (
    ConfigError,
    DataError,
    UnknownNameError,
    first_line,
    shorten,
    suggestion,
)
from unsee.files import path_text
from unsee.hub.names import PREFIX
from unsee.recipes.specs import Spec, parse_spec
from unsee.training.launcher import is_main_process
from unsee.types import Data, Picture, Sample

if TYPE_CHECKING:
    from unsee.benchmarks import Benchmark

LOGGER = logging.getLogger("unsee")


def read_samples(
    path: str | Path,
    role: str = "forget",
    opened: dict[Spec, Benchmark] | None = None,
    notes: list[str] | None = None,
) -> list[Sample]:
    """The samples in a folder of pictures, a table, or a split of a benchmark.

    Every picture is decoded once here, so that a run does not fail on one later.

    Args:
        path: A folder of pictures (a subfolder a person, or flat: its name is the concept); a
            .jsonl, .json, .csv, .tsv or .parquet file with columns image, question, answer,
            concept, or a folder that `datasets` saved; or "NAME:SPLIT" for a split of a benchmark;
            see `parse_spec`.
        role: What the set is for: "forget", "retain", ...; used in messages, and a forget set must
            say of every row whom it is about.
        opened: Benchmarks that are open already, each of which is read once; added to.
        notes: Sentences on what was read and what was not, added to; None logs them at once.

    Raises:
        DataError: If anything in it cannot be used; up to ten bad rows or files are named.
    """
    text = path_text(f"the {role} set ", path, "give a folder or a table.", DataError)
    spec = parse_spec(text)
    if spec is not None:
        if not spec.split:
            raise DataError(
                f"the {role} set '{path}' names no split. Type {spec.name}:SPLIT; "
                f"the splits are {', '.join(spec.open(opened).splits)}."
            )
        return list(spec.open(opened).load(spec.split))
    path = Path(path)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        links = isinstance(error, OSError) and error.errno == errno.ELOOP
        advice = (
            "Give the folder itself" if links else "Change its permissions, or give another path"
        )
        why = "it is a link that leads to itself" if links else first_line(error)
        raise DataError(
            f"the {role} set '{shorten(text, 200)}' cannot be read ({why}). {advice}."
        ) from error
    sentences: list[str] = [] if notes is None else notes
    if path.is_dir():
        samples = read_folder(path, role, sentences)
    elif PSEUDONYM.fullmatch(text):
        raise DataError(
            f"the {role} set {text} stands for a path that a redacted run has left out. Type the "
            "path again, such as forget=DIR after the recipe."
        )
    elif text.startswith(PREFIX):
        name = text.removeprefix(PREFIX).partition("@")[0]
        raise DataError(
            f"the {role} set '{text}': of the hub only benchmarks are read where they are, as "
            "NAME:SPLIT@OWNER/NAME. `unsee data check` says which one it looks like. Else type "
            f"`hf download {name} --repo-type dataset --local-dir DIR`, and give a table or a "
            "folder in DIR."
        )
    elif not path.exists():
        raise DataError(
            f"the {role} set '{path}' does not exist. Give a folder of pictures, a "
            f"{', '.join(SUFFIXES)} file, or NAME:SPLIT of a benchmark."
        )
    elif path.suffix.lower() in SUFFIXES:
        samples = read_table(path, role, sentences)
    else:
        suffix = path.suffix.lower()
        one = " One picture alone goes into a folder." if suffix in PICTURES else ""
        one = " Unpack it first, and give the folder." if suffix in ARCHIVES else one
        raise DataError(
            f"the {role} set '{path}' is of a kind that is not read.{one} Give a folder of "
            f"pictures, a {', '.join(SUFFIXES)} file, or NAME:SPLIT of a benchmark."
        )
    if notes is None and is_main_process():
        for sentence in sentences:
            LOGGER.warning(sentence)
    return samples


def make_data(
    forget: Sequence[Sample],
    retain: Sequence[Sample] | None = None,
    strangers: Sequence[Picture] | None = None,
) -> Data:
    """The data that a method may use, checked.

    Args:
        forget: Samples to forget.
        retain: Samples to keep.
        strangers: Pictures of people that the model was not trained on; None takes
            `shipped_strangers`.

    Raises:
        DataError: If there is nothing to forget, or forget and retain share a picture.
    """
    if not forget:
        raise DataError("the forget set is empty. Give it at least one sample.")
    retain = tuple(retain or ())
    check_disjoint(forget, retain)
    known = shipped_strangers() if strangers is None else strangers
    return Data(tuple(forget), retain, tuple(known))


def shipped_strangers() -> list[Picture]:
    """Pictures of people without a name, from the benchmark that ships with the package."""
    from unsee.benchmarks import BENCHMARKS, DEFAULT_BENCHMARK

    return list(BENCHMARKS.get(DEFAULT_BENCHMARK).open().strangers())


def shipped_checkpoint(source: str) -> str:
    """A checkpoint as it is typed: BENCHMARK:ROLE is one that ships with a benchmark.

    Example:
        `shipped_checkpoint("pocket:target")` is the folder of the target model of pocket;
        `shipped_checkpoint("some-lab/some-model")` stays as it is.

    Raises:
        UnseeError: If the benchmark does not ship it.
    """
    from unsee.benchmarks import BENCHMARKS

    path_text("model ", source, "give a checkpoint folder, or a hub id.")
    name, colon, _ = source.partition(":")
    spec = parse_spec(source) if colon and name in BENCHMARKS.names() else None
    if spec is None:
        shipping = [key for key, kind in BENCHMARKS.items() if kind.checkpoints]
        if colon and suggestion(name, shipping) and not _names_module_or_file(source):
            raise UnknownNameError("benchmark with models", name, shipping)
        return source
    roles = BENCHMARKS.get(spec.name).checkpoints
    if not roles:
        raise ConfigError(
            f"model '{source}': benchmark {spec.name} ships no models. Give a checkpoint folder, "
            "or a hub id."
        )
    if spec.split not in roles:
        raise UnknownNameError(f"{spec.name} model", spec.split, roles)
    return str(spec.open().checkpoint(spec.split))


def _names_module_or_file(source: str) -> bool:
    """Whether a model that is spelled much like a benchmark's is there, as a file or a function."""
    # Imported here, as it needs torch.
    from unsee.families.encoders.functions import has_module, is_function

    if not is_function(source):
        return os.path.exists(source)
    return has_module(source)
