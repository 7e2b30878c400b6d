"""`unsee --version` and shell completion."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.cli import unsee
from unsee import __version__


def test_version_prints_the_version() -> None:
    assert unsee("--version") == f"unsee {__version__}\n"


@pytest.mark.parametrize(
    ("words", "position", "suggestion"),
    [
        ("unsee unl", 1, "unlearn"),
        ("unsee list me", 2, "methods"),
        ("unsee show vk", 2, "vkd"),
    ],
)
def test_completion_suggests_commands_and_names(words: str, position: int, suggestion: str) -> None:
    """What a shell runs when the user presses TAB."""
    environment = os.environ | {
        "_UNSEE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(position),
    }
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\nsys.argv[0] = 'unsee'\nfrom unsee.cli import main\nmain()",
        ],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert suggestion in done.stdout.split(), done.stderr
