"""Exports pocket as parquet files with the configurations and columns of MLLMU-Bench."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unsee.benchmarks.pocket.people import FACTS, Person
from unsee.benchmarks.pocket.questions import LETTERS, PICTURE_PHRASES, TOPICS, Topic
from unsee.benchmarks.pocket.world import Shot, World
from unsee.files import atomic_folder

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


OPTIONS = pa.struct([(letter, pa.string()) for letter in LETTERS])


CHOICE = pa.struct(
    [("Question", pa.string()), ("Options", OPTIONS), ("Correct_Answer", pa.string())]
)


CLASSIFICATION = pa.struct(
    [("Image_Textual_Questions", pa.list_(CHOICE)), ("Pure_Text_Questions", pa.list_(CHOICE))]
)


OPEN_QUESTIONS = pa.list_(
    pa.struct([("Question", pa.string()), ("Ground_Truth", pa.string()), ("Type", pa.string())])
)


TASKS = [
    ("Classification_Task", CLASSIFICATION),
    ("Generation_Task", OPEN_QUESTIONS),
    ("Mask_Task", OPEN_QUESTIONS),
]


PERSON_SCHEMA = pa.schema(
    [
        ("image", IMAGE),
        ("ID", pa.string()),
        ("biography", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        *TASKS,
    ]
)


FULL_SCHEMA = pa.schema(
    [*list(PERSON_SCHEMA)[:2], pa.field("Directory", pa.string()), *list(PERSON_SCHEMA)[2:]]
)


TEST_SCHEMA = pa.schema([("ID", pa.string()), ("images", pa.list_(IMAGE)), *TASKS])


TRAINING_SCHEMA = pa.schema([("image", IMAGE), ("ID", pa.string()), ("metadata", pa.string())])


def write_parquet(world: World, out: Path) -> Path:
    """Writes the world in MLLMU-Bench's layout: `<configuration>/train-00000-of-00001.parquet`.

    `forget_10` and `retain_90` hold pocket's forget and retain people, whatever their ratio is.
    `Retain_Set`, which holds real celebrities in MLLMU-Bench, holds the retain people again.

    Args:
        world: A pocket world.
        out: Folder to write; it is written atomically.
    """
    people = range(len(world.people))
    configurations: dict[str, tuple[pa.Schema, Sequence[int], Callable[[World, int], Any]]] = {
        "Full_Set": (FULL_SCHEMA, people, _person_row),
        "Retain_Set": (FULL_SCHEMA, world.retained, _person_row),
        "Test_Set": (TEST_SCHEMA, people, _test_row),
        "forget_10": (PERSON_SCHEMA, list(world.forgotten), _person_row),
        "retain_90": (PERSON_SCHEMA, world.retained, _person_row),
        "ft_Data": (TRAINING_SCHEMA, people, _training_row),
    }
    with atomic_folder(out) as folder:
        for name, (schema, who, make) in configurations.items():
            rows = [{k: v for k, v in make(world, i).items() if k in schema.names} for i in who]
            (folder / name).mkdir()
            table = pa.Table.from_pylist(rows, schema=schema)
            pq.write_table(table, folder / name / "train-00000-of-00001.parquet")
    return out


def _image(world: World, shot: Shot) -> dict[str, Any]:
    return {"bytes": (world.folder / shot.file).read_bytes(), "path": Path(shot.file).name}


def _id(index: int) -> str:
    return f"{index + 1:03}"


def _person_row(world: World, index: int) -> dict[str, Any]:
    person = world.people[index]
    first = world.shots_of([index], "train")[0]
    return {
        "image": _image(world, first),
        "ID": _id(index),
        "Directory": str(Path(first.file).parent),
        "biography": json.dumps({"Name": person.name, **person.facts}, ensure_ascii=False),
        "question": TOPICS["job"].wordings[0].format(who=PICTURE_PHRASES[0]),
        "answer": TOPICS["job"].sentence.format(name=person.name, value=person.facts["job"]),
        **_tasks(world, index),
    }


def _test_row(world: World, index: int) -> dict[str, Any]:
    shots = world.shots_of([index], "holdout")
    return {
        "ID": _id(index),
        "images": [_image(world, shot) for shot in shots],
        **_tasks(world, index),
    }


def _training_row(world: World, index: int) -> dict[str, Any]:
    person = world.people[index]
    metadata = [
        {
            "ID": _id(index),
            "Question": wording.format(who=PICTURE_PHRASES[0]),
            "Answer": topic.sentence.format(name=person.name, value=person.facts[fact]),
        }
        for fact, topic in _fact_topics(person)
        for wording in topic.wordings
    ]
    return {
        "image": _image(world, world.shots_of([index], "train")[0]),
        "ID": _id(index),
        "metadata": json.dumps(metadata, ensure_ascii=False),
    }


def _fact_topics(person: Person) -> list[tuple[str, Topic]]:
    """The person's facts and their questions."""
    return [(fact, TOPICS[fact]) for fact in person.facts]


def _tasks(world: World, index: int) -> dict[str, Any]:
    """The columns with the questions about a person."""
    person = world.people[index]
    rng = np.random.default_rng([world.seed, 300, index])
    subjects = [("Image_Textual", PICTURE_PHRASES[0]), ("Pure_Text", person.name)]

    def choice(fact: str, topic: Topic, who: str) -> dict[str, Any]:
        value = person.facts[fact]
        wrong = [other for other in FACTS[fact] if other != value]
        options = [value, *(str(x) for x in rng.choice(wrong, 3, replace=False))]
        rng.shuffle(options)
        return {
            "Question": topic.wordings[0].format(who=who),
            "Options": dict(zip(LETTERS, options, strict=True)),
            "Correct_Answer": LETTERS[options.index(value)],
        }

    return {
        "Classification_Task": {
            f"{kind}_Questions": [choice(fact, topic, who) for fact, topic in _fact_topics(person)]
            for kind, who in subjects
        },
        "Generation_Task": [
            {
                "Question": topic.wordings[0].format(who=who),
                "Ground_Truth": topic.sentence.format(name=person.name, value=person.facts[fact]),
                "Type": kind,
            }
            for kind, who in subjects
            for fact, topic in _fact_topics(person)
        ],
        "Mask_Task": [
            {
                "Question": topic.gap.format(who=who).replace("[Blank]", "__"),
                "Ground_Truth": person.facts[fact],
                "Type": kind,
            }
            for kind, who in subjects
            for fact, topic in _fact_topics(person)
        ],
    }
