"""The rendered files, letter by letter. ``UPDATE_GOLDEN=1 python -m pytest tests/cluster`` writes them anew."""

from __future__ import annotations

import os

import pytest

from cluster.render.command import Format
from cluster.render.formats import FORMATS
from tests.cluster.specs import CASES, GOLDEN, golden_spec


@pytest.mark.parametrize(("case", "kind"), [(case, kind) for case, kinds in CASES.items() for kind in kinds])
def test_the_files_are_those_of_before(case: str, kind: Format) -> None:
    folder = GOLDEN / case
    files = FORMATS[kind](golden_spec(case))
    if os.environ.get("UPDATE_GOLDEN"):
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    assert files == {name: (folder / name).read_text(encoding="utf-8") for name in files}


def test_no_golden_file_is_left_over() -> None:
    expected = {
        GOLDEN / case / name
        for case, kinds in CASES.items()
        for name in ["cluster.yaml", *(name for kind in kinds for name in FORMATS[kind](golden_spec(case)))]
    }
    assert {path for path in GOLDEN.rglob("*") if path.is_file()} == expected
