"""Files and folders as one value: what arrives is what was sent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.measure.parcel import pack

names = st.text("abc", min_size=1, max_size=3)


def test_a_file_has_its_own_digest(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"\0weights\xff")
    parcel = pack(file)
    assert parcel.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert parcel.size == file.stat().st_size
    (tmp_path / "there").mkdir()
    arrived = parcel.unpack(tmp_path / "there")
    assert arrived == tmp_path / "there" / "model.onnx"
    assert arrived.read_bytes() == file.read_bytes()


@settings(max_examples=30)
@given(st.dictionaries(st.tuples(names, names), st.binary(max_size=20), min_size=1, max_size=5))
def test_a_folder_arrives_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[tuple[str, str], bytes]
) -> None:
    place = tmp_path_factory.mktemp("parcel")
    for (folder, name), content in contents.items():
        file = place / "model_ncnn_model" / folder / f"{name}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    parcel = pack(place / "model_ncnn_model")
    arrived = parcel.unpack(place / "there")
    assert {path.relative_to(arrived) for path in arrived.rglob("*.bin")} == {
        path.relative_to(place / "model_ncnn_model") for path in (place / "model_ncnn_model").rglob("*.bin")
    }
    assert pack(arrived) == parcel
    assert parcel.size == sum(map(len, contents.values()))
    changed = next(arrived.rglob("*.bin"))
    changed.write_bytes(changed.read_bytes() + b"x")
    assert pack(arrived).sha256 != parcel.sha256
