"""The last step of a study: the front measured again, what its parts bring, ``front.json``, and the report."""

from __future__ import annotations

import json
from pathlib import Path

from search.ablation import measure_contributions
from search.again import measure_again, measure_test, patient, time_by, validate_on
from search.artifact import MeasureLatency
from search.final import Finals
from search.report.html.page import write_html
from search.report.markdown import write_report
from search.results import summary
from search.store import Store, write_atomically
from search.study import StudyConfig
from search.tasks.table import view_content
from search.workplace import Workplace


def finish(config: StudyConfig, folder: Path, store: Store, place: Workplace, latency: MeasureLatency) -> None:
    """Writes the results; what was measured after the search before is not measured again.

    What parts of the picks bring is measured as far as it takes no training. ``latency`` times a file on the main
    target beside the baseline's.
    """
    finals = Finals(folder)
    validate = validate_on(place.inputs.data, folder, place.runtime)
    if config.final is not None:
        measure_again(config, store, finals, time_by(latency, folder, patient(place.target, config.final)), validate)
    if "test" in view_content(place.inputs.data):
        measure_test(config, store, finals, validate)
    result = summary(config, store, folder)
    write_atomically(folder / "front.json", json.dumps(result, indent=2) + "\n")
    measure_contributions(config, store, place, latency, train=False)
    write_report(config, store, result, folder)
    write_html(config, store, result, folder, out=folder / "report.html")
