"""Ultralytics as a quiet library: nothing is sent anywhere, and no integration joins in by itself."""

from __future__ import annotations

INTEGRATIONS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")


def quiet_ultralytics() -> None:
    """Turns off usage statistics and integrations, for this process only.

    Its Ray Tune integration would report each epoch of a trial by itself. The settings are changed in memory, not
    in the user's own settings file.
    """
    from ultralytics.utils import SETTINGS

    dict.update(SETTINGS, {"sync": False, **dict.fromkeys(INTEGRATIONS, False)})
