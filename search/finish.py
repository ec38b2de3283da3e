"""The last step of a study: the front on the test split, ``front.json``, what parts bring, and the report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from search.ablation import measure_contributions
from search.report.markdown import write_report
from search.results import summary
from search.store import Store, write_atomically
from search.study import StudyConfig
from search.tasks.table import view_content
from search.trial import Workplace


def finish(config: StudyConfig, folder: Path, store: Store, place: Workplace) -> None:
    """Writes the results; the front is measured on the test split once, if the data set has one.

    What parts of the picks bring is measured as far as it takes no training.
    """
    result = summary(config, store, folder)
    if "test" in view_content(place.inputs.data):
        _add_test(result, folder, place)
    write_atomically(folder / "front.json", json.dumps(result, indent=2) + "\n")
    measure_contributions(config, store, place, train=False)
    write_report(config, store, result, folder)


def _add_test(result: dict, folder: Path, place: Workplace) -> None:
    from search.measure.accuracy import measure_accuracy

    for member in [result["baseline"], *result["front"]]:
        if member["test"] is None:
            accuracy = measure_accuracy(
                folder / member["artifact"],
                place.inputs.data,
                split="test",
                image_size=member["recipe"]["image_size"],
                threads=place.inputs.threads,
            )
            member["test"] = asdict(accuracy)
