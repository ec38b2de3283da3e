"""Which models Torch-Pruning can follow: those whose blocks were tried.

It fails on others in all ways: with an error deep inside, with channels that no longer fit, or with a search in its
graph that does not end in hours.
"""

from __future__ import annotations

from torch import nn

TRIED = (
    *("Conv", "DWConv", "GhostConv", "Bottleneck", "GhostBottleneck", "Concat", "SPPF"),
    *("C2f", "C3", "C3Ghost", "C3k", "C3k2", "C2PSA", "PSABlock", "Attention"),
    *("Detect", "DFL", "Classify"),
)


def check_traceable(model: nn.Module) -> None:
    """Refuses a model with a block of Ultralytics that was not tried; this package's own blocks all were.

    Raises:
        ValueError: names the block.
    """
    for module in model.modules():
        kind = type(module)
        if kind.__module__.startswith("ultralytics.nn.modules.") and kind.__name__ not in TRIED:
            raise ValueError(
                f"prune: a {kind.__name__} cannot be pruned; models of YOLOv3, v5, v6, v8 and YOLO11 can, "
                "others go without: in the space, leave prune out"
            )
