"""The pages of the catalogue: the techniques with their recipes, and the table of what each does alone."""

from __future__ import annotations

from typing import Any

import yaml

from search.alone import Row
from spaces.combine import own_fields
from spaces.techniques import FAMILIES, Setting

HEADER = ("technique", "size", "latency", "95 %", "accuracy after", "fine-tuned", "beside plain fine-tuning", "s")


INTRODUCTION = """\
# Catalogue

Every technique by its name, with the fields of a recipe that use it alone. `python -m search catalogue` measures each
of them on a model of yours, as [results/bccd-catalogue](../results/bccd-catalogue/catalogue.md) has it for blood cells.
Techniques that set different values of one field, such as two kinds of `quantize`, exclude one another; all others can
be combined, unless the recipe says why not. How to [add one](adding-a-technique.md).

`N` is the number of epochs and `R` the learning rate of the plain fine-tuning, which have no technique to them. Where
a technique trains by itself, 5 epochs are shared out. This page is written by
`python -m search techniques > docs/catalogue.md`.

"""


def techniques_page() -> str:
    """docs/catalogue.md: a section for each family, with a line for each technique: its name, recipe and sentence."""
    setting = Setting(image_size=320, images="/data/pictures", teacher="/models/larger.pt")
    sections: list[str] = []
    for title, (details, family) in FAMILIES.items():
        lines = ["| technique | in a recipe | what it does |", "|---|---|---|"]
        for name, technique in family.items():
            recipe = yaml.safe_dump(own_fields(name, setting), default_flow_style=True, sort_keys=False, width=1000)
            shown = recipe.strip()[1:-1].replace("|", "\\|")  # the fields alone, without the outermost braces
            lines.append(f"| `{name}` | `{shown}` | {technique.about} |")
        sections.append(f"## {title}\n\nDetails: [{details}](catalogue/{details}.md).\n\n" + "\n".join(lines))
    return INTRODUCTION + "\n\n".join(sections) + "\n"


def catalogue_page(catalogue: dict[str, Any]) -> str:
    """The page beside ``catalogue.json``: its rows by family, and how they were measured."""
    rows = {row["technique"]: row for row in catalogue["rows"]}
    reference = rows.get("finetune", {}).get("accuracy_finetuned")
    sections = [f"# What each technique does alone: {catalogue['model']} on {catalogue['data']}", _measured(catalogue)]
    families = {"No technique": ("baseline", "finetune"), **{title: tuple(of) for title, (_, of) in FAMILIES.items()}}
    for title, names in families.items():
        found = [rows[name] for name in names if name in rows]
        lines = [_line(row, reference) for row in found if not row["error"]]
        failed = [f"- `{row['technique']}` failed: {row['error']}" for row in found if row["error"]]
        if found:
            table = "\n".join([_joined(HEADER), _joined(("---",) * len(HEADER)), *lines]) if lines else ""
            sections.append("\n\n".join(filter(None, [f"## {title}", table, "\n".join(failed)])))
    return "\n\n".join(sections) + "\n"


def progress_line(row: Row, done: int, total: int) -> str:
    """What a person sees when a row is finished."""
    if row.error:
        return f"{done}/{total}  {row.technique}  failed: {row.error}"
    trained = "" if row.accuracy_finetuned is None else f", {row.accuracy_finetuned:.3f} after {row.epochs} epochs"
    return (
        f"{done}/{total}  {row.technique}  size ×{row.size_ratio:.3f}, latency ×{row.latency_ratio:.3f}, "
        f"accuracy {row.accuracy_after:.3f}{trained}  ({row.seconds:.0f} s)"
    )


def _line(row: dict[str, Any], reference: float | None) -> str:
    low, high = row["latency_ratio_ci"]
    trained = row["accuracy_finetuned"]
    beside = "" if trained is None or reference is None else f"{trained - reference:+.3f}"
    return _joined(
        (
            f"`{row['technique']}`",
            f"×{row['size_ratio']:.3f}",
            f"×{row['latency_ratio']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{row['accuracy_after']:.3f}",
            "" if trained is None else f"{trained:.3f}",
            beside,
            f"{row['seconds']:.0f}",
        )
    )


def _measured(catalogue: dict[str, Any]) -> str:
    host, images = catalogue["host"], catalogue["images"]
    counts = ", ".join(f"{count} {split}" for split, count in images.items())
    versions = ", ".join(f"{name} {version}" for name, version in host["packages"].items())
    return "\n".join(
        [
            "Each row is the plain recipe with one technique. Size and latency are ratios to the plain FP32 file;",
            "latency is one thread's CPU time in ONNX Runtime, run by run beside that file, with a bootstrap interval.",
            "Accuracy is of the exported file on the validation split: right after the change, and after all training,",
            f"{catalogue['epochs']} epochs for every row. The row `finetune` is what training alone gives. Rows of one",
            "and the same recipe share one measurement, which costs the second of them no time.",
            "",
            f"- Images: {counts}; {catalogue['image_size']} px.",
            f"- Peak learning rate {catalogue['lr']:g}, seed {catalogue['seed']}.",
            f"- Host {host['id']}: {host['cpu']}, {host['usable_cores']} cores. {versions}.",
            f"- `{catalogue['command']}`",
        ]
    )


def _joined(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
