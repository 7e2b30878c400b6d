"""Recognition by features: verification and retrieval of people's pictures among other people's.

No question and no true answer is needed: the pictures of a person are compared with each other and
with those of other people, as a face recognition system does. Features are compared by cosine after
the mean of all enrolled pictures was subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Share of pairs of different people that verification accepts.
FALSE_ACCEPTS = 0.01


@dataclass(frozen=True)
class PersonRecognition:
    """How well a person is recognised by features; None is "could not be computed".

    Attributes:
        rank_1: Share of the person's tested pictures whose nearest person is this one.
        verification_auc: ROC-AUC of the similarity of the person's tested pictures to their own
            other pictures, against that to the pictures of other people.
        verification_rate: Share of the pairs of the person's pictures that are accepted where
            `FALSE_ACCEPTS` of the pairs of different people are.
    """

    rank_1: float | None = None
    verification_auc: float | None = None
    verification_rate: float | None = None


def recognise_people(
    enrolled: Float[np.ndarray, "enrolled dim"],
    labels: Sequence[str],
    tested: Float[np.ndarray, "tested dim"],
    tested_labels: Sequence[str],
    same_picture: Sequence[int | None] | None = None,
) -> dict[str, PersonRecognition]:
    """Returns how well each tested person is recognised among the enrolled people.

    Args:
        enrolled: Features of pictures whose person is known: the gallery.
        labels: The person of each.
        tested: Features of the pictures to recognise.
        tested_labels: The person of each; people with none enrolled are not scored.
        same_picture: For each tested picture its row in the gallery, which is then left out for it;
            None where it is not enrolled.

    Example:
        >>> gallery = np.array([[2.0, 0.0], [2.1, 0.1], [-2.0, 1.0], [-2.1, 0.9]])
        >>> tested = np.array([[1.9, 0.2]])
        >>> recognise_people(gallery, ["Ada", "Ada", "Bo", "Bo"], tested, ["Ada"])["Ada"].rank_1
        1.0
    """
    owners = np.array(labels)
    center = enrolled.mean(0)
    gallery, queries = unit(enrolled - center), unit(tested - center)
    similarity = queries @ gallery.T
    impostors = _pairs_of_two(gallery, owners)
    own_rows = same_picture if same_picture is not None else [None] * len(tested)
    nearest = nearest_prototypes(enrolled, labels, tested)
    found = {}
    for person in dict.fromkeys(tested_labels):
        hits, same, different = [], [], []
        for row in (r for r, label in enumerate(tested_labels) if label == person):
            usable = np.arange(len(owners)) != (-1 if own_rows[row] is None else own_rows[row])
            own, others = usable & (owners == person), owners != person
            if not own.any() or not others.any():
                continue
            named = nearest[row]
            if own_rows[row] is not None:
                rest = [name for name, is_used in zip(labels, usable, strict=True) if is_used]
                (named,) = nearest_prototypes(enrolled[usable], rest, tested[[row]])
            hits.append(float(named == person))
            same.append(similarity[row, own])
            different.append(similarity[row, others])
        if hits:
            pairs = np.concatenate(same)
            enough = len(impostors) >= 1 / FALSE_ACCEPTS
            found[person] = PersonRecognition(
                rank_1=float(np.mean(hits)),
                verification_auc=auc(pairs, np.concatenate(different)),
                verification_rate=tpr_at_fpr(pairs, impostors, FALSE_ACCEPTS) if enough else None,
            )
    return found


def _pairs_of_two(gallery: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """The similarities of all pairs of enrolled pictures of different people."""
    first, second = np.triu_indices(len(owners), 1)
    different = owners[first] != owners[second]
    similarity: np.ndarray = (gallery @ gallery.T)[first[different], second[different]]
    return similarity


def auc(members: Sequence[float] | np.ndarray, others: Sequence[float] | np.ndarray) -> float:
    """Returns the ROC-AUC: how often a member scores above a non-member; ties count half.

    Example:
        >>> auc([2, 1], [0, 1])
        0.875
    """
    ordered = np.sort(np.asarray(others, dtype=float))
    values = np.asarray(members, dtype=float)
    below = np.searchsorted(ordered, values, "left")
    below_or_equal = np.searchsorted(ordered, values, "right")
    return float((below + below_or_equal).mean() / (2 * len(ordered)))


def tpr_at_fpr(
    members: Sequence[float] | np.ndarray, others: Sequence[float] | np.ndarray, fpr: float
) -> float:
    """Returns the true positive rate at a false positive rate of at most `fpr`.

    Args:
        members: Scores of the members.
        others: Scores of the non-members.
        fpr: Largest false positive rate, 0..1.
    """
    ordered = np.sort(np.asarray(others, dtype=float))[::-1]
    allowed = int(fpr * len(ordered))
    return float((np.asarray(members, dtype=float) > ordered[allowed]).mean())


def nearest_prototypes(
    states: Float[np.ndarray, "known dim"],
    labels: Sequence[str],
    tested: Float[np.ndarray, "tested dim"],
) -> list[str]:
    """Returns the label of the nearest prototype to each tested state, by centred cosine.

    Args:
        states: States of pictures whose labels are known.
        labels: Their labels.
        tested: States to label; of equally near prototypes the first label is given.

    Example:
        >>> states = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
        >>> nearest_prototypes(states, ["Ada", "Ada", "Bo"], np.array([[5.0, 1.0], [1.0, 5.0]]))
        ['Ada', 'Bo']
    """
    if not len(tested):
        return []
    names, similarities = prototype_similarities(states, labels, tested)
    return [names[i] for i in similarities.argmax(1)]


def zero_shot_names(
    pictures: Float[np.ndarray, "pictures dim"],
    texts: Float[np.ndarray, "names dim"],
    names: Sequence[str],
) -> list[str]:
    """Returns the name of the nearest text to each picture, by cosine.

    Source: zero-shot classification of CLIP (Radford et al., arXiv 2103.00020, section 3.1).

    Args:
        pictures: Embeddings of pictures.
        texts: Embeddings of a caption with each name, in the same space.
        names: The names; of equally near ones the first is given.

    Example:
        >>> pictures, texts = np.array([[3.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
        >>> zero_shot_names(pictures, texts, ["Bo", "Cy"])
        ['Cy']
    """
    return [names[i] for i in (unit(pictures) @ unit(texts).T).argmax(1)]


def prototype_similarities(
    states: Float[np.ndarray, "known dim"],
    labels: Sequence[str],
    tested: Float[np.ndarray, "tested dim"],
) -> tuple[list[str], Float[np.ndarray, "tested labels"]]:
    """Returns the distinct labels, and the centred cosine of tested states to their prototypes.

    A prototype is the mean state of a label; the mean of all prototypes is subtracted from both.

    Args:
        states: States of pictures whose labels are known.
        labels: Their labels.
        tested: States to compare.

    Example:
        >>> states = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> names, similarities = prototype_similarities(states, ["Ada", "Bo"], states)
        >>> names, similarities.round(6).tolist()
        (['Ada', 'Bo'], [[1.0, -1.0], [-1.0, 1.0]])
    """
    names = list(dict.fromkeys(labels))
    position = {name: i for i, name in enumerate(names)}
    rows = np.array([position[label] for label in labels])
    prototypes = np.stack([states[rows == i].mean(0) for i in range(len(names))])
    center = prototypes.mean(0)
    return names, unit(tested - center) @ unit(prototypes - center).T


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: np.ndarray = rows / np.where(lengths > 0, lengths, 1)
    return scaled
