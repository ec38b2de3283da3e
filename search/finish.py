"""The last step of a study: its fronts measured again, what parts of picks bring, ``front.json``, and the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from search.ablation import measure_contributions
from search.again import give_up, measure_again, measure_test, patient, time_by, validate_on
from search.artifact import MeasureLatency
from search.elsewhere import seen_from
from search.errors import UserError
from search.final import Finals
from search.report.contributions import row_line
from search.report.finals import final_line
from search.report.html.page import write_html
from search.report.markdown import write_report
from search.results import summary
from search.store import Records, Store, write_atomically
from search.study import StudyConfig
from search.target import Target
from search.tasks.table import view_content
from search.workplace import Workplace

LatencyOn = Mapping[str, MeasureLatency]
Tell = Callable[[str], None]


def finish(
    config: StudyConfig, folder: Path, store: Store, place: Workplace, latency_on: LatencyOn, tell: Tell
) -> None:
    """Writes the results; what was measured after the search before is not measured again.

    What parts of the picks bring is measured as far as it takes no training. ``latency_on`` times a file beside the
    baseline's, by the target's name. ``tell`` hears a line of each measurement.
    """
    measure_fronts(config, store, place, latency_on, tell)
    result = summary(config, store, folder)
    write_atomically(folder / "front.json", json.dumps(result, indent=2) + "\n")
    latency = latency_on[config.target.name]
    measure_contributions(config, store, place, latency, train=False, on_row=lambda *row: tell(row_line(*row)))
    write_report(config, store, result, folder)
    write_html(config, store, result, folder, out=folder / "report.html")


def measure_fronts(config: StudyConfig, store: Records, place: Workplace, latency_on: LatencyOn, tell: Tell) -> None:
    """Measures the front of every target again, and its members on the test split if there is one.

    Without the main target a study has no end. Another one that cannot be measured costs its own records a reason.

    Raises:
        UserError: nothing can be measured on the main target.
    """

    def finals_on(target: str | None) -> Finals:
        return Finals(place.folder, target, lambda final: tell(final_line(final)))

    _measure_front(config, store, finals_on(None), place, place.target, latency_on[place.target.name])
    for target in place.others:
        records, finals = seen_from(store, target.name), finals_on(target.name)
        try:
            _measure_front(config, records, finals, place, target, latency_on[target.name])
        except UserError as error:
            give_up(config, records, finals, str(error))


def _measure_front(
    config: StudyConfig, records: Records, finals: Finals, place: Workplace, target: Target, latency: MeasureLatency
) -> None:
    validate = validate_on(place.inputs.data, place.folder, place.runtime(target))
    if config.final is not None:
        time_file = time_by(latency, place.folder, patient(target, config.final))
        measure_again(config, records, finals, time_file, validate)
    if "test" in view_content(place.inputs.data):
        measure_test(config, records, finals, validate)
