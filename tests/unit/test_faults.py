"""What a folder does to a study: full, gone, or another than it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from search.errors import FaultError, UserError
from search.faults import fault_of, mark, sees, watched
from tests.fullness import fill, small_disk


def test_a_folder_is_known_by_its_token(tmp_path: Path) -> None:
    study, other = tmp_path / "study", tmp_path / "other"
    token = mark(study)
    assert mark(study) == token and len(token) == 32
    assert sees(study, token)
    assert mark(other) != token
    assert not sees(other, token)  # another machine's folder of the same path would be such a one
    study.rename(tmp_path / "away")
    assert not sees(study, token)
    assert not sees(study, "") and sees(other, "")


def test_a_full_disk_is_named_whatever_the_library_says_of_it(tmp_path: Path) -> None:
    with small_disk(tmp_path / "study", 4) as study:
        token, cache = mark(study), tmp_path / "stages"
        cache.mkdir()
        ballast = fill(study)
        with pytest.raises(RuntimeError) as caught:
            torch.save(torch.zeros(1000), study / "weights.pt")
        fault = fault_of(caught.value, [study, cache], token)
        assert fault is not None
        assert str(fault).startswith(f"{study} is full; ") and f"python -m search resume {study}" in str(fault)
        assert str(fault_of(caught.value, [cache, study])).startswith(f"{study} is full; ")
        ballast.unlink()
        assert fault_of(caught.value, [study, cache], token) is None  # there is room, so it was something else
        with pytest.raises(FaultError, match="is full"), watched([study], token):
            raise ValueError from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # was, before it was cleared


def test_what_no_folder_explains_stays_what_it_is(tmp_path: Path) -> None:
    token = mark(tmp_path)
    assert fault_of(RuntimeError("NaN"), [tmp_path, tmp_path / "not made yet"], token) is None
    assert fault_of(FileNotFoundError(2, "no", "teacher.pt"), [tmp_path], token) is None
    with pytest.raises(KeyError), watched([tmp_path], token):
        raise KeyError
    with pytest.raises(UserError, match=r"^mine$"), watched([tmp_path], "another"):
        raise UserError("mine")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EROFS, errno.EDQUOT])
def test_errors_of_the_system_end_a_study(tmp_path: Path, number: int) -> None:
    try:
        try:
            raise OSError(number, os.strerror(number), str(tmp_path / "cache" / "x"))
        except OSError as inner:
            raise RuntimeError("cannot save") from inner
    except RuntimeError as error:
        fault = fault_of(error, [tmp_path], mark(tmp_path))
    assert fault is not None and str(fault).startswith(str(tmp_path))


def test_a_folder_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    study = tmp_path / "study"
    token = mark(study)
    study.rename(tmp_path / "away")
    with pytest.raises(FaultError, match=f"{study} is no longer there.* resume {study}"), watched([study], token):
        (study / "records.jsonl").open("a")
