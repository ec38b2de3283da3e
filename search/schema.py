"""The JSON schema of the study file, so that editors complete and check it while it is written.

It is stricter than the tool where YAML leaves a choice (``"8"`` is no number in it), and does not know what depends on
two keys or on files: names of targets given twice, a provider of another runtime, a batch for a runtime that takes
one picture, a data set that is not there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from search.study import StudyConfig
from spaces.json_schema import DRAFT, Untitled, space_schema

Schema = dict[str, Any]


def study_schema() -> Schema:
    """A JSON schema (draft 2020-12) of what ``load_study`` reads."""
    own = StudyConfig.model_json_schema(schema_generator=Untitled)
    return {"$schema": DRAFT, **own, "title": "A study of yolo-front"}


SCHEMAS: dict[str, Callable[[], Schema]] = {"study": study_schema, "space": space_schema}


def schema_text(name: str) -> str:
    """A schema as JSON text, the code marks of docstrings as in Markdown."""
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False).replace("``", "`") + "\n"
