"""Detectors with two heads, as YOLO26 and YOLOv10 have: one for non-maximum suppression behind it, one for none.

Only the first is kept. It is what Ultralytics exports if nothing else is said, its answers have the form of all other
families' and survive the rounding to 8 bits, which the other one's class numbers do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import load_checkpoint


def load_model(path: Path) -> nn.Module:
    """The model in a checkpoint, in float and with one head, by Ultralytics' loader, which refuses code of others.

    Raises:
        ValueError: it has only the head without non-maximum suppression.
    """
    model = load_checkpoint(str(path))[0]
    keep_one_head(model)
    return model


def keep_one_head(model: Any) -> None:
    """Takes the head that needs no non-maximum suppression out of ``model``, in place.

    Raises:
        ValueError: it is the only one.
    """
    for head in model.modules():
        if isinstance(head, Detect) and getattr(head, "one2one_cv2", None) is not None:
            if head.cv2 is None:
                raise ValueError(
                    "it was fused and has only its one-to-one head left; give the checkpoint that training wrote"
                )
            del head.one2one_cv2, head.one2one_cv3
            model.yaml = {**model.yaml, "end2end": False}
            model.criterion = None
