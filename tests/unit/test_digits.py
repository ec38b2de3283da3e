"""The digits data set: reproducible, no leaks between splits, boxes that are the ink, read by Ultralytics."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from search.digits import MAX_OVERLAP, N_SOURCES, SPLITS, Box, draw_digits, make_digits, split_indices
from search.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SIZE = 96
COUNTS = {"train": 6, "val": 3, "test": 2}
EPSILON = 1e-6  # label files hold six decimals


def make(root: Path, seed: int = 0) -> Path:
    return make_digits(root, seed=seed, image_size=SIZE, counts=COUNTS).parent


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("data") / "digits")


def hashes(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def read_boxes(label_file: Path) -> np.ndarray:
    """(N, 5): class, x centre, y centre, width, height."""
    return np.array([line.split() for line in label_file.read_text().splitlines()], float)


def test_same_seed_gives_identical_bytes(digits: Path, tmp_path: Path) -> None:
    again = hashes(make(tmp_path / "again"))
    assert again == hashes(digits)
    assert len(again) == 2 * sum(COUNTS.values()) + 2


def test_other_seed_gives_other_pixels(digits: Path, tmp_path: Path) -> None:
    one, two = hashes(digits), hashes(make(tmp_path / "other", seed=1))
    assert one.keys() == two.keys()
    assert all(one[f] != two[f] for f in one if f.endswith(".png"))


def test_more_canvases_keep_the_first_ones(digits: Path, tmp_path: Path) -> None:
    counts = {s: n + 1 for s, n in COUNTS.items()}
    bigger = hashes(make_digits(tmp_path / "bigger", image_size=SIZE, counts=counts).parent)
    assert all(bigger[f] == h for f, h in hashes(digits).items() if f.endswith((".png", ".txt")))


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_splits_share_no_scan(seed: int) -> None:
    parts = split_indices(seed)
    together = [i for s in SPLITS for i in parts[s]]
    assert sorted(together) == list(range(N_SOURCES))  # as many as there are scans: none twice, none lost
    assert len(parts["train"]) > len(parts["val"]) > 300


def test_canvases_are_drawn_only_from_their_split(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every scan of the other two splits turned into a block, the training canvases must not change."""
    marked: Any = datasets.load_digits()
    parts = split_indices(0)
    marked.images[parts["val"] + parts["test"]] = 16.0
    monkeypatch.setattr(datasets, "load_digits", lambda: marked)
    plain, other = hashes(digits), hashes(make(tmp_path / "marked"))
    same = {f for f in plain if plain[f] == other[f]}
    assert {f for f in same if f.startswith("images/")} == {f for f in plain if f.startswith("images/train/")}


def test_labels_are_in_range_and_the_manifest_tells_the_sources(digits: Path) -> None:
    for split in SPLITS:
        files = sorted((digits / "labels" / split).glob("*.txt"))
        assert [f.stem for f in files] == sorted(p.stem for p in (digits / "images" / split).glob("*.png"))
        for label, x, y, width, height in np.concatenate([read_boxes(f) for f in files]):
            assert label in range(10)
            for centre, length in ((x, width), (y, height)):
                assert length / 2 - EPSILON <= centre <= 1 - length / 2 + EPSILON
            assert min(width, height) * SIZE >= 4
    assert json.loads((digits / "manifest.json").read_text())["source_indices"] == split_indices(0)


def test_boxes_are_exactly_the_ink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a flat background every other pixel is ink: it lies in the boxes and touches all their edges."""
    monkeypatch.setattr("search.digits.background", lambda rng, size: np.full((size, size, 3), 128, np.float32))
    root = make(tmp_path / "flat")
    files = sorted(root.glob("labels/*/*.txt"))
    assert len(files) == sum(COUNTS.values())
    for file in files:
        picture = Image.open(root / "images" / file.parent.name / f"{file.stem}.png")
        ink = (np.asarray(picture) != 128).any(axis=2)
        outside = ink.copy()
        for _, x, y, width, height in read_boxes(file) * SIZE:
            edges = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            assert np.abs(edges - edges.round()).max() < 1e-3
            x0, y0, x1, y1 = edges.round().astype(int)
            inside = ink[y0:y1, x0:x1]
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
            outside[y0:y1, x0:x1] = False
        assert not outside.any()


def test_digits_hardly_overlap_and_keep_their_class() -> None:
    digits: Any = datasets.load_digits()
    scans, labels = digits.images[:6], np.arange(6)
    for seed in range(20):
        boxes = draw_digits(np.full((SIZE, SIZE, 3), 128, np.float32), scans, labels, np.random.default_rng(seed))
        assert len(boxes) >= 3
        assert len({b.label for b in boxes}) == len(boxes)
        assert all(a.overlap(b) <= MAX_OVERLAP for i, a in enumerate(boxes) for b in boxes[:i])


def test_overlap_is_a_share_of_the_smaller_box() -> None:
    big, small = Box(label=0, x0=0, y0=0, x1=10, y1=10), Box(label=1, x0=8, y0=0, x1=12, y1=5)
    assert big.overlap(small) == small.overlap(big) == 0.5
    assert big.overlap(Box(label=1, x0=10, y0=0, x1=12, y1=5)) == 0


def test_ultralytics_accepts_it(digits: Path) -> None:
    from ultralytics.data.utils import check_det_dataset, img2label_paths

    checked = check_det_dataset(str(digits / "data.yaml"), autodownload=False)
    assert checked["nc"] == 10
    assert [checked["names"][n] for n in range(10)] == list("0123456789")
    for split, count in COUNTS.items():
        images: list[str | Path] = sorted(Path(checked[split]).glob("*.png"))
        assert len(images) == count
        assert all(Path(label).is_file() for label in img2label_paths(images))


def test_a_complete_set_is_reused_untouched(tmp_path: Path) -> None:
    root = make(tmp_path / "digits")
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert make(root) == root
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]  # nothing temporary is left beside it


def test_other_settings_or_missing_files_are_refused_not_overwritten(tmp_path: Path) -> None:
    root = make(tmp_path / "digits")
    with pytest.raises(UserError, match="other files or settings"):
        make(root, seed=1)
    (root / "images" / "val" / "00000.png").unlink()
    left = hashes(root)
    with pytest.raises(UserError, match="remove it"):
        make(root)
    assert hashes(root) == left


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr("search.digits.draw_digits", fail)
    with pytest.raises(RuntimeError, match="on fire"):
        make(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("counts", [{"train": 1, "val": 1}, {"train": 1, "val": 1, "test": 0}])
def test_wrong_counts_are_refused(counts: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="counts"):
        make_digits(tmp_path / "digits", counts=counts)


def test_import_is_cheap() -> None:
    code = "import sys, search.digits; print({'cv2', 'sklearn', 'torch', 'ultralytics'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
