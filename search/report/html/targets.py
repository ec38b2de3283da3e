"""The fronts of a study's other targets as one plain object, which the page draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.contributions import picked_members
from search.elsewhere import seen_from
from search.final import Finals
from search.report.finals import measured_again, troubles
from search.report.html.data import Object, figures
from search.report.tables import front_rows, header, how_sure
from search.store import Records


def targets_data(result: Mapping[str, Any], store: Records, folder: Path) -> Object | None:
    """A front for each target but the main one, and how far targets agree; None for a study of one target.

    Args:
        result: of ``search.results.summary``.
        store: the study's records, as the search saw them.
        folder: the study's, where it is noted what was measured after the search.
    """
    if not result["agreement"]:
        return None
    return {
        "main": result["target"],
        "fronts": [
            {"name": name, **_front(own, seen_from(store, name), Finals(folder, name))}
            for name, own in result["others"].items()
        ],
        "agreement": result["agreement"],
    }


def _front(own: Object, seen: Records, finals: Finals) -> Object:
    again = measured_again(seen, finals)
    picks = picked_members(own)
    return {
        "batch": own["baseline"]["latency_batch"],
        "hypervolume": own["hypervolume"],
        "again": len(again),
        "troubles": troubles(again, finals),
        "table": {"header": list(header(own)), "rows": [list(row) for row in front_rows(own)]},
        "members": [
            {
                "id": member["record_id"],
                "picks": picks.get(member["record_id"], []),
                "sure": how_sure(member),
                **figures(member),
            }
            for member in own["front"]
        ],
    }
