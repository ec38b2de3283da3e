"""A training that is killed between epochs goes on to the very weights that it would have reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from search.stages.finetune import finetune
from spaces.recipe import Finetune, LogitDistill, NoDistill
from tests.tiny import SIZE, weights

SETTINGS = [
    {"epochs": 4},
    {"epochs": 4, "close_mosaic": 0.5, "ema": "epoch", "schedule": "one_cycle"},
    {"epochs": 4, "close_mosaic": 0.75, "optimizer": "sgd", "lr": 0.01, "l1": 0.01},
]


class KilledError(Exception):
    """Stands for the end of the process."""


def run(model: nn.Module, baseline: Path, data: Path, part: dict[str, Any], **arguments: Any) -> nn.Module:
    plan = Finetune(**{"batch": 4, **part})
    distill = arguments.pop("distill", NoDistill())
    return finetune(
        model, plan, distill, data=data, image_size=SIZE, teacher=baseline, seed=0, threads=1, **arguments
    )  # fmt: skip


@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize("part", SETTINGS, ids=["plain", "mosaic closes in the middle", "mosaic closed before"])
def test_it_goes_on_to_the_same_weights(
    model: nn.Module, baseline: Path, data: Path, tmp_path: Path, part: dict[str, Any], after: int
) -> None:
    checkpoint = tmp_path / "training.state"
    whole = run(model, baseline, data, part)
    seen: list[int] = []

    def kill(done: int, total: int, snapshot: Any) -> None:
        seen.append(done)
        if done == after + 1:
            raise KilledError

    with pytest.raises(KilledError):
        run(model, baseline, data, part, checkpoint=checkpoint, on_epoch=kill)
    assert checkpoint.is_file() and not list(tmp_path.glob("*.tmp"))
    rest: list[int] = []
    again = run(model, baseline, data, part, checkpoint=checkpoint, on_epoch=lambda done, total, _: rest.append(done))
    assert seen == list(range(1, after + 2)) and rest == list(range(after + 1, 5))
    assert weights(again) == weights(whole)


def test_a_checkpoint_changes_nothing_in_a_training_that_is_not_cut_off(
    model: nn.Module, baseline: Path, data: Path, tmp_path: Path
) -> None:
    distill = LogitDistill()
    plain = run(model, baseline, data, {"epochs": 2}, distill=distill)
    kept = run(model, baseline, data, {"epochs": 2}, distill=distill, checkpoint=tmp_path / "training.state")
    assert weights(kept) == weights(plain)
