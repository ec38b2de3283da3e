"""A folder through a log: whole, or an error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import UserError
from cluster.wire import INDEX_MARK, PIECE_MARK, index, index_line, piece_lines, pieces, read_index, read_pieces

NAMES = st.sampled_from(["records.jsonl", "study.yaml", "artifacts/ab/model.onnx", "ünï côde/a b.txt", "x"])
NOISE = ["INFO job_manager.py:581 -- Runtime env is setting up.", "", "yolo-front", "error: not really"]


@given(contents=st.dictionaries(NAMES, st.binary(max_size=60)), length=st.integers(1, 20))
def test_every_byte_arrives(contents: dict[str, bytes], length: int) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place)
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        entries = read_index("\n".join([*NOISE, index_line(index(folder)), *NOISE]))
        wanted = pieces(entries, length)
        log = "\n".join([*NOISE, *(line for line in piece_lines(folder, wanted)), *NOISE])
    arrived = dict.fromkeys(contents, b"")
    for piece, content in zip(wanted, read_pieces(log, wanted), strict=True):
        assert piece.offset == len(arrived[piece.path])
        arrived[piece.path] += content
    assert arrived == contents
    assert {entry.path: entry.sha256 for entry in entries} == {
        name: hashlib.sha256(content).hexdigest() for name, content in contents.items()
    }


def test_the_index_has_the_results_and_the_records_first(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    folder = tmp_path / "study"
    names = ["a.json", "artifacts/x/model.onnx", "records.jsonl", "z.md"]
    for name in [*names, "cache/stages/1", "data/images/0.jpg", ".lock", "artifacts/.tmp/model.onnx"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "link").symlink_to(tmp_path / "outside")
    expected = ["records.jsonl", "a.json", "artifacts/x/model.onnx", "z.md"]
    assert [entry.path for entry in index(folder)] == expected


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\\..\\x", ""])
def test_no_path_leads_out_of_the_folder(path: str) -> None:
    log = INDEX_MARK + json.dumps([{"path": path, "size": 1, "sha256": ""}])
    with pytest.raises(UserError, match="outside of the study's folder"):
        read_index(log)


def test_an_index_that_did_not_arrive() -> None:
    with pytest.raises(UserError, match="did not arrive"):
        read_index("\n".join(NOISE))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"{PIECE_MARK}1", "nothing 1", "did not arrive"),
        (f"{PIECE_MARK}1 ", f"{PIECE_MARK}1 %", "damaged"),
        ("Y2Q=", "Yw==", "did not arrive"),
    ],
)
def test_pieces_that_are_not_whole(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"abcd")
    wanted = pieces(index(tmp_path), 2)
    log = "\n".join(piece_lines(tmp_path, wanted))
    assert read_pieces(log, wanted) == [b"ab", b"cd"] and old in log
    with pytest.raises(UserError, match=message):
        read_pieces(log.replace(old, new), wanted)
