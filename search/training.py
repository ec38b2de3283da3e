"""One training of a recipe: found in the cache, gone on with where it was cut off, or done from its start."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search.cache import stage_name
from search.inputs import Inputs
from search.stages.finetune import OnEpoch, divided, finetune
from search.stages.trainer import AfterStep
from spaces.recipe import Distill, Finetune, NoDistill, UnlabeledDistill


class NotTrainedError(LookupError):
    """A training that may not be done now and was not done before."""


def train_once(
    model: nn.Module,
    part: Finetune,
    distill: Distill,
    inputs: Inputs,
    *,
    image_size: int,
    after_step: AfterStep | None,
    note: str,
    on_epoch: OnEpoch,
    finish: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> nn.Module:
    """``finetune`` with the settings of a study; ``inputs.cache`` keeps the result, and the state after each epoch.

    Args:
        model: as in ``finetune``, like ``part``, ``distill``, ``image_size``, ``after_step`` and ``on_epoch``.
        inputs: where everything else comes from.
        note: what tells ``after_step`` and ``finish`` from others that may be given for such a model.
        finish: makes of the trained model what is kept and returned.

    Raises:
        NotTrainedError: the cache does not have it, and ``inputs.may_train`` is false.
    """

    cache = inputs.cache
    name = _name(model, part, distill, inputs, image_size=image_size, note=note) if cache is not None else ""
    state = f"{name}.state"

    def heard(done: int, total: int, snapshot: Callable[[], Any]) -> None:
        if cache is not None:
            cache.share_state(state)
        on_epoch(done, total, snapshot)

    def make(checkpoint: Path | None = None) -> nn.Module:
        trained = finetune(
            model,
            part,
            distill,
            data=inputs.data,
            image_size=image_size,
            teacher=inputs.baseline,
            seed=inputs.seed,
            threads=inputs.threads,
            device=inputs.device,
            on_epoch=heard,
            after_step=after_step,
            checkpoint=checkpoint,
            extra=inputs.train_settings,
            processes=inputs.processes,
        )
        return finish(trained)

    if cache is None:
        return make()
    if not inputs.may_train and name not in cache:
        raise NotTrainedError(
            f"its training, {name}, is not in the study's cache: that was emptied, or another version of this software "
            "filled it; run the study again to have it, or take its file from artifacts/"
        )
    cache.folder.mkdir(parents=True, exist_ok=True)
    result = cache.get(name, lambda: make(cache.bring(state)), load=_load, save=torch.save)
    cache.drop(state)
    return result


def model_digest(model: nn.Module) -> str:
    """Names a model by its modules, their settings and its weights."""
    digest = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]


def _name(
    model: nn.Module, part: Finetune, distill: Distill, inputs: Inputs, *, image_size: int, note: str
) -> str:  # fmt: skip
    taught: list[Any] = []
    if not isinstance(distill, NoDistill):
        teacher = inputs.baseline if distill.teacher == "baseline" else Path(distill.teacher)
        taught.append(_file_digest(teacher))
    if isinstance(distill, UnlabeledDistill):
        taught.append(_tree_stamp(Path(distill.images)))
    return stage_name(
        "train",
        model=model_digest(model),
        part=part.model_dump(mode="json"),
        distill=distill.model_dump(mode="json", exclude={"teacher", "teacher_device", "images"}),
        taught=taught,
        data=inputs.data_digest or _tree_stamp(inputs.data.parent),
        image_size=image_size,
        seed=inputs.seed,
        settings=inputs.train_settings,
        processes=divided(part.batch, inputs.processes),
        note=note,
    )


@lru_cache(maxsize=64)
def _tree_stamp(folder: Path) -> str:
    """Names the pictures and labels of a view, or any folder of pictures: by names, sizes and times of change.

    A change while this process runs is not seen.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in {".cache", ".tmp", ".yaml"}:
            stat = path.stat()  # of the file that a link leads to
            digest.update(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]


@lru_cache(maxsize=64)
def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:20]


def _load(path: Path) -> nn.Module:
    return torch.load(path, weights_only=False)  # one of this program's own
