"""Data-parallel training, in two processes on CPUs: it takes the steps that one process takes on the whole batch."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn
from ultralytics.cfg import get_cfg

from search.measure.quiet import measuring, working
from search.pipeline import Inputs, shape, train
from search.stages.finetune import divided, finetune
from search.stages.losses import label_loss
from search.stages.sparsify import convolution_weights
from spaces.recipe import ChannelPrune, Finetune, LogitDistill, NMSparsify, NoDistill, Recipe, WeightQat
from tests.tiny import SHORT, SIZE, parameters, tiny_model, weights

# The images as they are, so that it does not matter which process augments which.
PLAIN = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr"), 0.0)


@pytest.fixture(scope="module")
def short() -> nn.Module:
    return tiny_model(architecture=SHORT)


def run(model: nn.Module, data: Path, processes: int, **arguments: Any) -> nn.Module:
    part = Finetune(**{"epochs": 1, "batch": 12, "mosaic": 0.0, "ema": "none", **arguments.pop("part", {})})
    return finetune(
        model, part, arguments.pop("distill", NoDistill()), data=data, image_size=SIZE, seed=0, threads=1,
        processes=processes, teacher=Path("none"), **arguments
    )  # fmt: skip


def steps(model: nn.Module, trained: nn.Module) -> torch.Tensor:
    """How far each weight went, in one row."""
    before, after = (dict(m.named_parameters()) for m in (model, trained))
    return torch.cat([(after[name] - before[name]).flatten() for name in before])


def loss_of(model: nn.Module, batch: dict[str, Any]) -> float:
    copy: Any = deepcopy(model).train()  # with the statistics of the batch: the running ones follow slowly
    copy.args = get_cfg()
    copy.criterion = label_loss(copy, 0.0)
    return float(copy(batch)[0].sum())


def test_a_step_is_that_of_one_process_on_the_whole_batch(short: nn.Module, data: Path) -> None:
    """Normalization is frozen: each process would do it with the statistics of its own images."""
    part = {"optimizer": "sgd", "lr": 1.0, "weight_decay": 0.0, "freeze_names": "*.bn.*"}
    small = {"box": 7.5e-4, "cls": 5e-5, "dfl": 1.5e-4}  # a ten-thousandth, since large gradients are clipped
    alone, together = (run(short, data, n, part=part, extra={**PLAIN, **small}) for n in (1, 2))
    expected, found = steps(short, alone), steps(short, together)
    assert 1e-3 < expected.norm() < 9  # clipped at 10
    assert torch.dist(found, expected) < 1e-3 * expected.norm()


def test_a_training_that_is_cut_off_goes_on_to_the_same_weights(
    short: nn.Module, data: Path, batches: list[dict[str, Any]], tmp_path: Path
) -> None:
    part = {"epochs": 3, "batch": 4, "mosaic": 1.0, "lr": 5e-3}
    state, models = tmp_path / "training.state", []

    def cut(done: int, total: int, snapshot: Any) -> None:
        models.append(snapshot())
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(short, data, 2, part=part, checkpoint=state, on_epoch=cut)
    assert [file.name for file in tmp_path.iterdir()] == ["training.state"]  # written by one of the two
    rest: list[int] = []
    resumed = run(short, data, 2, part=part, checkpoint=state, on_epoch=lambda done, total, _: rest.append(done))
    assert rest == [2, 3]
    whole = run(short, data, 2, part=part)
    assert weights(resumed) == weights(whole)
    assert [type(m) for m in models[0].modules()] == [type(m) for m in whole.modules()]
    losses = [loss_of(model, batches[0]) for model in (short, models[0], whole)]
    assert losses[0] > losses[1] > losses[2]


def test_every_part_of_a_recipe_survives(baseline: Path, data: Path) -> None:
    """The pruned shape, zeros that are held after each step, weights that round, and a teacher."""
    recipe = Recipe(
        image_size=SIZE,
        prune=ChannelPrune(ratio=0.5, round_to=4),
        sparsify=NMSparsify(),
        finetune=Finetune(epochs=1, batch=6),
        distill=LogitDistill(),
        qat=WeightQat(epochs=1),
    )
    inputs = Inputs(baseline=baseline, data=data, processes=2)
    shaped, seen = shape(recipe, inputs), list[int]()
    trained = train(shaped, recipe, inputs, lambda done, total, snapshot: seen.append(done))
    assert seen == [1, 2]
    assert parameters(trained) == parameters(shaped) < 0.6 * parameters(tiny_model())
    zeros = {name: weight == 0 for name, weight in convolution_weights(shaped).items()}
    for name, weight in convolution_weights(trained).items():
        assert not weight[zeros[name]].any()
    assert weights(trained) != weights(shaped)


def test_what_a_process_raises_is_raised_here(short: nn.Module, data: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher: there is no file missing\.pt"):
        run(short, data, 2, distill=LogitDistill(teacher="missing.pt"))
    assert psutil.Process().children() == []


def test_the_death_of_one_process_ends_all(short: nn.Module, data: Path) -> None:
    me = psutil.Process()
    part = {"epochs": 50, "batch": 6}
    with pytest.raises(RuntimeError):
        run(short, data, 2, part=part, on_epoch=lambda *_: os.kill(me.children()[-1].pid, signal.SIGKILL))
    assert me.children() == []


def test_a_batch_is_divided_evenly_or_by_fewer() -> None:
    assert [divided(batch, 4) for batch in (1, 2, 6, 8, 9, 16)] == [1, 2, 3, 4, 3, 4]


def test_a_measurement_that_wants_quiet_has_it_soon(
    short: nn.Module, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, and while the parent works on what a child waits for."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # locks of their own
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found, done = list[tuple[bool, float, float]](), threading.Event()
    me, epochs = psutil.Process(), list[int]()

    def computed() -> float:
        return sum(sum(child.cpu_times()[:2]) for child in me.children())

    def measure() -> None:
        while not done.is_set():
            start = time.monotonic()
            with measuring(quiet=True, patience=8) as still:
                waited, before = time.monotonic() - start, computed()
                time.sleep(0.3)
                if len(epochs) < 3:  # after that the children end
                    found.append((still, waited, computed() - before))
            time.sleep(0.2)

    def validate(epoch: int, total: int, snapshot: Any) -> None:
        epochs.append(epoch)
        if epoch == 1:
            measurer.start()
            time.sleep(0.3)  # the gate closes, while the first child waits for what comes now
        with working() as pause:
            pause()

    measurer = threading.Thread(target=measure)
    try:
        run(short, data, 2, part={"epochs": 3, "batch": 4}, on_epoch=validate)
    finally:
        done.set()
        measurer.join()
    assert epochs == [1, 2, 3]
    assert len(found) >= 2
    assert all(still and waited < 5 for still, waited, _ in found), found
    assert max(cpu for _, _, cpu in found) < 0.1, found
