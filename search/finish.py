"""The last step of a study: the front measured again and on the test split, ``front.json``, and the report."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from search.again import measure_again, measure_test, patient, time_apart, validate_on
from search.final import Finals
from search.measure.apart import Apart
from search.report.markdown import write_report
from search.results import summary
from search.store import Store, write_atomically
from search.study import StudyConfig
from search.tasks.table import view_content
from search.trial import Workplace


def finish(config: StudyConfig, folder: Path, store: Store, place: Workplace) -> None:
    """Writes the results; what was measured after the search before is not measured again."""
    finals = Finals(folder)
    validate = validate_on(place.inputs.data, folder, place.inputs.threads)
    if config.final is not None:
        with closing(Apart()) as apart:
            time_file = time_apart(apart, folder, place.baseline_onnx, patient(place.target, config.final))
            measure_again(config, store, finals, time_file, validate)
    if "test" in view_content(place.inputs.data):
        measure_test(config, store, finals, validate)
    result = summary(config, store, folder)
    write_atomically(folder / "front.json", json.dumps(result, indent=2) + "\n")
    write_report(config, store, result, folder)
