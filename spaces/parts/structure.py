"""Which blocks the model is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.parts.base import Part

# The backbone makes the feature maps, the neck mixes their levels, the head turns each level into boxes and scores.
Where = Literal["backbone", "neck", "head", "all"]


class NoStructure(Part):
    """The blocks of the baseline."""

    kind: Literal["none"] = "none"


class Depthwise(Part):
    """Depthwise-separable convolutions (arXiv:1610.02357) in place of the 3x3 ones, but for the stem.

    ``where`` is the section of the model that is changed.
    """

    kind: Literal["depthwise"] = "depthwise"
    where: Where = "all"


class Grouped(Part):
    """3x3 convolutions in groups that do not see each other's channels (arXiv:1611.05431), but for the stem.

    ``groups`` is their number; a layer whose channels it cannot share out, two or more a group, takes the largest
    divisor of it that can. ``where`` is the section of the model that is changed.
    """

    kind: Literal["grouped"] = "grouped"
    groups: Literal[2, 4, 8] = 2
    where: Where = "all"


class Ghost(Part):
    """Ghost modules (arXiv:1911.11907) in place of the 3x3 convolutions, but for the stem.

    Half of a block's channels are computed as before, the other half from them by a depthwise 5x5 convolution.
    ``where`` is the section of the model that is changed.
    """

    kind: Literal["ghost"] = "ghost"
    where: Where = "all"


class SqueezeExcite(Part):
    """Channel attention (arXiv:1709.01507) behind every C2f block, and before the last convolutions of the head.

    ``where`` is the section that gets it; ``reduction`` the number of channels for each hidden unit, of which there
    are at least 8.
    """

    kind: Literal["se"] = "se"
    where: Where = "all"
    reduction: Literal[2, 4, 8, 16, 32] = 16


class EfficientAttention(Part):
    """Channel attention without a bottleneck (ECA, arXiv:1910.03151), in the places of ``SqueezeExcite``.

    Each channel's weight follows from the means of its few neighbours. ``where`` is the section that gets it.
    """

    kind: Literal["eca"] = "eca"
    where: Where = "all"


class CbamChannel(Part):
    """The channel part of CBAM (arXiv:1807.06521), in the places of ``SqueezeExcite``: it sees means and maxima.

    ``where`` is the section that gets it; ``reduction`` the number of channels for each hidden unit, of which there
    are at least 8.
    """

    kind: Literal["cbam"] = "cbam"
    where: Where = "all"
    reduction: Literal[2, 4, 8, 16, 32] = 16


class Scale(Part):
    """A smaller member of the model's own family, with a part of the baseline's weights (arXiv:2311.18823).

    ``width`` and ``depth`` multiply the multiples by which the family's architecture file scales its channels and
    its repeated blocks; its own rounding holds: channels to multiples of 8 upwards, at least one block.
    """

    kind: Literal["scale"] = "scale"
    width: float = Field(default=1.0, gt=0, le=1)
    depth: float = Field(default=1.0, gt=0, le=1)


Structure = Annotated[
    NoStructure | Depthwise | Grouped | Ghost | SqueezeExcite | EfficientAttention | CbamChannel | Scale,
    Field(discriminator="kind"),
]
