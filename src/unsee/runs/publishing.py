"""Publication of what a run saved: which files are uploaded, and what is refused."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from unsee.artifacts.lineage import LINEAGE, read_lineage
from unsee.artifacts.manifest import MANIFEST, TENSORS, Step, read_manifest, step_of
from unsee.artifacts.model_card import BASE_CARD, CARD, Kind
from unsee.artifacts.patch import apply_patch
from unsee.artifacts.pseudonyms import PSEUDONYM
from unsee.artifacts.publication import Publication, license_in
from unsee.artifacts.redaction import hub_id
from unsee.benchmarks import BENCHMARKS
from unsee.errors import ConfigError, RunError, listed
from unsee.files import path_text, read_text
from unsee.hub.names import Repository
from unsee.models.checkpoint import ADAPTER, DOWNLOADED
from unsee.recipes.parsing import read_yaml
from unsee.recipes.sources import shipped_checkpoint
from unsee.recipes.unlearn import Recipe, make_recipe
from unsee.records.folder import RECIPE, SUMMARY
from unsee.records.reader import read_run
from unsee.records.schema import Summary
from unsee.runs.purge import identifying_files

GIVE = "give the folder of a run, of a patch, or of a checkpoint that `unsee apply` wrote."

# The files of each kind that are uploaded, beside the card.
FILES: dict[Kind, tuple[str, ...]] = {
    "patch": (MANIFEST, TENSORS),
    "model": (*DOWNLOADED, BASE_CARD),
    "adapter": ("adapter_*.json", "adapter_*.safetensors"),
}


@dataclass(frozen=True)
class Prepared:
    """An upload that is prepared.

    Attributes:
        kind: The kind of what is uploaded.
        folder: The folder that holds it.
        files: The files of the folder to upload, in order, without the card.
        card: The model card.
        left_out: Files of the folder that are not uploaded.
    """

    kind: Kind
    folder: Path
    files: tuple[str, ...]
    card: str
    left_out: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each file to upload in bytes, the card first."""
        sizes = {name: (self.folder / name).stat().st_size for name in self.files}
        return {CARD: len(self.card.encode()), **sizes}

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A folder of exactly what is uploaded; files are linked where the system can."""
        with tempfile.TemporaryDirectory(prefix="unsee-push-") as name:
            stage = Path(name)
            for file in self.files:
                source = (self.folder / file).resolve()
                try:
                    os.symlink(source, stage / file)
                except OSError:
                    shutil.copyfile(source, stage / file)
            (stage / CARD).write_text(self.card, "utf-8")
            yield stage


@contextmanager
def prepare(
    source: Path,
    repository: Repository,
    what: Kind | None = None,
    license: str | None = None,
    base_model: str | None = None,
) -> Iterator[Prepared]:
    """Prepares the upload of a run, a patch or a patched checkpoint; nothing is sent yet.

    Args:
        source: Its folder.
        repository: Where to.
        what: "patch", "model" or "adapter"; None is what was saved. A model of a run that saved a
            patch is written into a temporary folder first.
        license: The license; None is that of the base's card.
        base_model: The hub id of the base; None is what the card says.

    Raises:
        RunError: If the folder holds nothing of that kind, or a file names a person.
        UnseeError: If a patch or a checkpoint is damaged.
    """
    source = Path(path_text("run ", source, GIVE, RunError))
    summary = read_run(source).summary if (source / SUMMARY).is_file() else None
    folder, kind = _saved(source, summary, what)
    _refuse_people(folder, source)
    with tempfile.TemporaryDirectory(prefix="unsee-model-") as made:
        recipe = _recipe(source) if summary is not None else None
        if kind == "patch" and what == "model":
            base = _base_of(recipe, source)
            patches = [*(recipe.patch if recipe is not None else ()), str(folder)]
            folder, kind = Path(made) / "model", "model"
            apply_patch(patches, base, folder)
        saved = read_text(folder / CARD) if (folder / CARD).is_file() else f"# {repository.id}\n"
        known = base_model or _known_base(saved)
        publication = Publication(
            kind,
            repository.id,
            known,
            _commit_of_base(summary, known),
            license or _license(folder, recipe, known),
            _steps(folder, kind),
        )
        if summary is not None:
            publication = replace(
                publication, measures=summary.measures or {}, benchmark=summary.benchmark
            )
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        wanted = [n for n in names if any(fnmatch(n, pattern) for pattern in FILES[kind])]
        left_out = [n for n in names if n not in wanted and n != CARD]
        yield Prepared(kind, folder, tuple(wanted), publication.card(saved), tuple(left_out))


def _saved(source: Path, summary: Summary | None, what: Kind | None) -> tuple[Path, Kind]:
    """The saved folder that is published, and what it holds.

    Raises:
        RunError: If there is none, or none of that kind.
    """
    here: dict[Kind, Path] = {}
    if summary is not None and summary.artifacts is not None:
        saved = summary.artifacts
        given: dict[Kind, str | None] = {
            "patch": saved.patch,
            "model": saved.model,
            "adapter": saved.adapter,
        }
        here = {kind: source / name for kind, name in given.items() if name}
    elif (source / MANIFEST).is_file():
        here = {"patch": source}
    elif (source / LINEAGE).is_file():
        here = {"model": source}
    elif (source / ADAPTER).is_file():
        here = {"adapter": source}
    if not here:
        raise RunError(f"{source}: holds no patch and no model to publish. {GIVE.capitalize()}")
    kind = what or next(iter(here))
    if kind in here:
        return here[kind], kind
    # A model is made of the run's patch.
    if what == "model" and "patch" in here and summary is not None:
        return here["patch"], "patch"
    kinds = " and ".join(f"a {kind}" for kind in here)
    advice = (
        f"Type `unsee apply {source} --model MODEL --out DIR`, and push DIR."
        if what == "model"
        else "Leave --what out."
    )
    raise RunError(f"--what {what}: {source} holds {kinds}. {advice}")


def _refuse_people(folder: Path, source: Path) -> None:
    """Refuses files that name a person, a path or an unkeyed hash of pictures.

    Raises:
        RunError: If one does.
    """
    changes = list(identifying_files(folder))
    if changes:
        reasons = listed([f"{change.path.name} ({change.reason})" for change in changes])
        raise RunError(
            f"{source}: nothing was uploaded, because files may identify a person: {reasons}. Type "
            f"`unsee purge {source}` to take it out of them, or run again with --redact; see "
            "docs/personal-data.md."
        )


def _recipe(source: Path) -> Recipe | None:
    """The recipe of a run; None if it cannot be read, as that of an earlier release."""
    try:
        return make_recipe(read_yaml(source / RECIPE, "method: vkd", trusted=True))
    except ConfigError:
        return None


def _base_of(recipe: Recipe | None, source: Path) -> str:
    """The checkpoint that a run has unlearned.

    Raises:
        RunError: If the recipe does not say it.
    """
    typed = recipe.model if recipe is not None else None
    if recipe is not None and typed is None:
        benchmark = BENCHMARKS.get(recipe.benchmark).open(recipe.data, recipe.forget_ratio)
        typed = str(benchmark.checkpoint("target") or "") or None
    if typed is None or PSEUDONYM.fullmatch(typed):
        raise RunError(
            f"{source}: its recipe does not say which model was unlearned, so the model cannot be "
            f"made. Type `unsee apply {source / 'patch'} --model MODEL --out DIR`, and push DIR; "
            "or leave --what out, which publishes the patch."
        )
    return shipped_checkpoint(typed)


def _known_base(card: str) -> str | None:
    from huggingface_hub import ModelCard

    named = ModelCard(card, ignore_metadata_errors=True).data.get("base_model")
    return named if isinstance(named, str) else None


def _commit_of_base(summary: Summary | None, base: str | None) -> str | None:
    """The commit of the base that a run read from the hub."""
    provenance = summary.provenance if summary is not None else None
    read = (provenance.hub or {}) if provenance is not None else {}
    found = [commit for typed, commit in read.items() if hub_id(typed) == base]
    return found[0] if base is not None and len(found) == 1 else None


def _license(folder: Path, recipe: Recipe | None, base: str | None) -> str | None:
    """The license of the base: in its card beside the weights or in its folder, else on the hub."""
    places = [folder / BASE_CARD]
    if recipe is not None and recipe.model is not None and hub_id(recipe.model) is None:
        places.append(Path(recipe.model) / CARD)
    for place in places:
        if place.is_file():
            return license_in(read_text(place))
    return license_on_hub(base) if base is not None else None


def license_on_hub(repository: str) -> str | None:
    """Returns the license that the card of a repository names; None if the hub does not say."""
    from huggingface_hub import HfApi

    try:
        card = HfApi().model_info(repository).card_data
    except Exception:
        # The card then has no license, which the command says. The client has many errors.
        return None
    found = card.get("license") if card is not None else None
    return found if isinstance(found, str) else None


def _steps(folder: Path, kind: Kind) -> Sequence[Step]:
    """The patches on the base, in order."""
    if kind == "patch":
        manifest = read_manifest(folder)
        return (*manifest.earlier, step_of(manifest))
    return read_lineage(folder).steps
