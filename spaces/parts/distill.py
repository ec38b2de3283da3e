"""Who teaches beside the labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.parts.base import Part


class NoDistill(Part):
    """The labels alone teach."""

    kind: Literal["none"] = "none"


class FeatureDistill(Part):
    """The baseline teaches too: L2 distance of the head's inputs, weighted by the teacher's scores."""

    kind: Literal["feature"] = "feature"
    weight: float = Field(default=0.3, gt=0, le=100)


Distill = Annotated[NoDistill | FeatureDistill, Field(discriminator="kind")]
