"""The model of a bundle as a pipeline; ``python -m search serve BUNDLE --split N`` puts this and the stages there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from model import Model, Refused
from numpy.typing import NDArray
from runner.pipeline import Pipeline, PipelineError


class Piped(Model):
    """The model, whose stages each run in a process of their own. Pictures of one call follow one another through them.

    Attributes:
        pipeline: that runs it.
    """

    def __init__(self, stages: Path) -> None:
        """Starts the pipeline of a folder. Raises Refused."""
        super().__init__(file=str(stages / "stage1.onnx"))  # which has the whole model's input
        del self._session
        try:
            self.pipeline = Pipeline(stages)
        except PipelineError as error:
            raise Refused(str(error)) from error

    def run(self, planes: NDArray[Any]) -> NDArray[Any]:
        """As ``Model.run``. Raises PipelineError."""
        planes = planes.astype(self._dtype, copy=False)
        futures = [self.pipeline.submit([one[None]]) for one in planes]
        return np.concatenate([future.result()[0] for future in futures])

    def check(self) -> None:
        """As ``Model.check``."""
        if self.pipeline.broken:
            raise Refused(self.pipeline.broken)
