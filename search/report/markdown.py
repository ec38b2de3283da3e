"""``report.md``: the front as a table and a picture, how it was measured, and what became of every trial."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from search.final import Finals
from search.report.contributions import contributions_section
from search.report.doubts import doubt_sentences
from search.report.finals import tested_text
from search.report.plot import plot_front
from search.report.quantization import quantization_section
from search.report.savings import savings
from search.report.sure import sure_section
from search.report.tables import front_rows, header, markdown_table
from search.report.targets import targets_section
from search.store import Store, write_atomically
from search.study import StudyConfig
from search.timeline import overheads
from spaces.describe import describe


def write_report(config: StudyConfig, store: Store, result: dict[str, Any], folder: Path) -> None:
    """Writes ``report.md`` and ``front.svg`` into the study folder."""
    finals = Finals(folder)
    finished = [record for record in finals.applied(store).searched if record.state == "complete"]
    plot_front(result, finished, folder / "front.svg")
    tested = tested_text(result, finals)
    sections = [
        f"# {config.name}",
        "![the front](front.svg)",
        _front_section(result),
        sure_section(result, store, folder),
        "## On the test split\n\n" + tested if tested else "",
        targets_section(result, store, folder),
        quantization_section(config, store, result, folder),
        contributions_section(folder),
        _search_section(store, folder),
        "## How it was measured\n\n" + _list(measured_sentences(config, result, store)),
        _trials_section(store),
    ]
    write_atomically(folder / "report.md", "\n\n".join(filter(None, sections)) + "\n")


def _front_section(result: dict[str, Any]) -> str:
    return (
        f"## Front\n\nAccuracy is on the validation split, from which the search chose. "
        f"Hypervolume {result['hypervolume']:.4f}.\n\n{markdown_table(header(result), front_rows(result))}"
    )


def _search_section(store: Store, folder: Path) -> str:
    lines = search_sentences(store, folder)
    return "## The search\n\n" + _list(lines) if lines else ""


def search_sentences(store: Store, folder: Path) -> list[str]:
    """What was looked at, dropped, screened and stopped, and how far off the predictions were."""
    path = folder / "engine.json"
    if not path.is_file():
        return []
    engine = json.loads(path.read_text(encoding="utf-8"))
    counts = dict(engine["candidates"])
    seen = counts.pop("seen", 0)
    dropped = ", ".join(f"{count} for {reason}" for reason, count in sorted(counts.items())) or "none"
    saved = savings(store.searched)
    errors = {name: value for name, value in engine["errors"].items() if value is not None}
    lines = [
        f"Sampler {engine['sampler']}; {engine['epochs']} epochs were trained.",
        f"{seen} candidates were looked at in the last run without trying them; dropped: {dropped}.",
        f"{saved.stopped} trainings were stopped at a rung, which saved {saved.stopped_epochs} epochs.",
    ]
    if over := overheads(store):
        lines.append(
            f"Beside shaping, training, evaluation and measurement, a trial took {statistics.median(over):.2f} s "
            f"(median; at most {max(over):.2f} s, with the start of a worker), and "
            f"{engine.get('suggestion_seconds', 0.0):.2f} s to be suggested."
        )
    if errors:
        told = ", ".join(f"{name} {value:.3g}" for name, value in errors.items())
        lines.append(f"Errors of predictions on trunks left out, logarithms (of what accuracy lacks): {told}.")
    return lines


def measured_sentences(config: StudyConfig, result: dict[str, Any], store: Store) -> list[str]:
    """What was measured how, with which settings, and where."""
    host = result["host"] or {}
    target = config.target
    versions = ", ".join(f"{name} {version}" for name, version in host.get("packages", {}).items() if version)
    return [
        f"Accuracy: {result['metric']} by Ultralytics' validator on the exported ONNX file, "
        f"{config.image_size} px for the baseline.",
        f"Latency: {target.runtime} ({target.provider}), {target.threads} thread(s), "
        f"{'one picture' if target.batch == 1 else f'{target.batch} pictures'} in a run, at most {target.runs} runs "
        f"each, until the ratio is known to {target.precision:.1%}, interleaved with the FP32 baseline file in one "
        f"process; the ratio is of {'wall time' if target.by_wall_clock else 'CPU time'}, with an interval.",
        *(f"To be doubted: {sentence}" for sentence in doubt_sentences(store.searched)),
        f"Host {host.get('id', '?')}: {host.get('cpu', '?')}, {host.get('usable_cores', '?')} cores.",
        f"Versions: {versions}.",
        f"Data {config.data}, model {config.model}, space {config.space}, sampler {config.sampler}, "
        f"seed {config.seed}.",
    ]


def _trials_section(store: Store) -> str:
    states = ", ".join(f"{count} {state}" for state, count in sorted(store.states().items()))
    lost = [r for r in store.searched if r.state != "complete"]
    rows = [(r.id, r.state, describe(r.recipe), " ".join(r.reason.replace("|", "/").split())) for r in lost]
    table = "\n\n" + markdown_table(("record", "state", "recipe", "reason"), rows) if rows else ""
    return f"## Records\n\n{store.trials()} trials, {len(store.searched)} records: {states}.{table}"


def _list(sentences: list[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
