"""The same handwritten digits as a small real classification data set: each scan is a picture, each digit a folder.

from search.digit_scans import make_digit_scans
make_digit_scans(Path("datasets/scans"))    # -> datasets/scans/{train,val,test}/{0..9}/*.png
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from search.digits import MANIFEST, SPLITS, make_whole, split_indices

SCAN_SIZE = 32  # px, side of a picture: the 8x8 scan enlarged, since Ultralytics takes nothing below 10 px
FORMAT = 1  # raise it when the same arguments would give other pixels, so that old folders are not reused


def make_digit_scans(root: Path, *, seed: int = 0, counts: Mapping[str, int] | None = None) -> Path:
    """Makes the data set in ``root`` (or reuses it) and returns it; the splits use disjoint scans.

    The same arguments give byte-identical files. ``root`` appears whole or not at all.

    Args:
        root: the folder.
        seed: of the splits.
        counts: how many scans each split has at most; all 1,797 are used if it is not given, 60 % to train.

    Raises:
        UserError: ``root`` already holds something else.
    """
    settings = {"format": FORMAT, "seed": seed, "scan_size": SCAN_SIZE, "counts": dict(counts) if counts else None}
    make_whole(root, lambda folder: _write(folder, settings), lambda: _is_complete(root, settings))
    return root


def _write(root: Path, settings: Mapping[str, Any]) -> None:
    import cv2
    from sklearn.datasets import load_digits

    digits, sources = cast(Any, load_digits()), split_indices(settings["seed"])
    rng = np.random.default_rng(settings["seed"])
    for split in SPLITS:
        some = rng.permutation(sources[split]).tolist()  # a few of them are of many classes
        chosen = some[: settings["counts"][split]] if settings["counts"] else some
        for label in range(10):
            (root / split / str(label)).mkdir(parents=True)
        for index in chosen:
            grey = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
            picture = cv2.resize(grey, (SCAN_SIZE, SCAN_SIZE), interpolation=cv2.INTER_CUBIC)
            path = root / split / str(digits.target[index]) / f"{index:04d}.png"
            if not cv2.imwrite(str(path), picture):
                raise OSError(f"digits: could not write {path}")
    made = _found(root)
    (root / MANIFEST).write_text(json.dumps({**settings, "made": made}) + "\n")


def _is_complete(root: Path, settings: Mapping[str, Any]) -> bool:
    """Whether ``root`` holds every picture of exactly these settings."""
    if not (root / MANIFEST).is_file():
        return False
    manifest = json.loads((root / MANIFEST).read_text())
    return manifest.pop("made", None) == _found(root) and manifest == settings


def _found(root: Path) -> dict[str, int]:
    return dict(Counter(path.parent.parent.name for path in sorted(root.glob("*/*/*.png"))))
