"""Ultralytics as a quiet library: nothing is sent anywhere, nothing is printed, and no integration joins in."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

INTEGRATIONS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")


@contextmanager
def quiet_ultralytics() -> Generator[None]:
    """Runs Ultralytics' engines without usage statistics, integrations or output on the standard output.

    Its Ray Tune integration would report each epoch of a trial by itself, and some of its progress bars have no
    switch. The settings are changed in memory, not in the user's own settings file; ``--debug`` keeps the output.
    """
    from ultralytics.utils import LOGGER, SETTINGS, VERBOSE

    dict.update(SETTINGS, {"sync": False, **dict.fromkeys(INTEGRATIONS, False)})
    if VERBOSE:
        yield
        return
    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)  # it writes to the standard output that it found when it was imported
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        LOGGER.setLevel(level)
