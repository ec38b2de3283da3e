"""A folder comes home whole or not at all: Ray's own client over HTTP, with jobs that are processes here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import fetch as fetching
from cluster.address import Cluster
from cluster.errors import UserError
from cluster.fetch import fetch
from cluster.jobs import Jobs
from tests.dashboard import Dashboard, dashboard
from tests.tiny import files_below


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    monkeypatch.setattr(fetching, "BATCH", 2 * 2**20)
    with dashboard(tmp_path / "jobs") as server:
        yield server


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A study folder whose files come in three batches."""
    folder = tmp_path / "there"
    contents = {
        "study.yaml": b"name: x\n",
        "records.jsonl": b'{"id": 1}\n',
        "artifacts/a b/model.onnx": os.urandom(3 * 2**20 + 17),
        "baseline/model.onnx": os.urandom(2**20),
        "baseline/empty": b"",
        "cache/big": b"not a result",
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def jobs(head: Dashboard) -> Jobs:
    return Jobs(Cluster(address=head.address))


def results(folder: Path) -> dict[str, str]:
    return {path: sha for path, sha in files_below(folder).items() if path not in ("cache/big", "fetched.json")}


def test_a_folder_comes_home_and_then_only_what_is_new(head: Dashboard, there: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    fetched = fetch(jobs(head), str(there), out)
    assert results(out) == results(there) and fetched.files == 5
    assert fetched.new_bytes == fetched.bytes == 4 * 2**20 + 17 + 8 + 10
    assert head.jobs == {}  # the small jobs are not left in the list
    (there / "records.jsonl").write_bytes(b'{"id": 1}\n{"id": 2}\n')
    (there / "baseline" / "empty").unlink()
    again = fetch(jobs(head), str(there), out)
    assert results(out) == results(there) and again.new_bytes == 20
    assert [file.name for file in out.parent.iterdir()] == ["out"]


def test_a_fetch_that_is_cut_off_changes_nothing_and_goes_on(head: Dashboard, there: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fetch(jobs(head), str(there), out)
    before, done = files_below(out), len(head.finished)
    (there / "records.jsonl").write_bytes(b'{"id": 3}\n')
    for name in ("artifacts/1/model.onnx", "artifacts/2/model.onnx"):
        (there / name).parent.mkdir()
        (there / name).write_bytes(os.urandom(2 * 2**20))
    (there / "artifacts" / "0").write_bytes(b"comes with the first batch")
    head.logs_of = lambda number, log: log if number < done + 2 else log[: len(log) // 2]  # the index, the first batch
    with pytest.raises(UserError, match="fetch again, what is whole is kept"):
        fetch(jobs(head), str(there), out)
    assert files_below(out) == before
    (there / "artifacts" / "0").unlink()
    head.logs_of = lambda number, log: log
    sent = sum(map(len, head.finished))
    fetched = fetch(jobs(head), str(there), out)
    assert results(out) == results(there)
    assert 0 < fetched.new_bytes < 4 * 2**20  # the first batch was kept
    assert sum(map(len, head.finished)) - sent < 1.5 * 4 * 2**20


def test_a_file_that_changes_meanwhile_is_not_taken_for_whole(head: Dashboard, there: Path, tmp_path: Path) -> None:
    def change(number: int, log: str) -> str:
        if number == 0:
            (there / "baseline" / "model.onnx").write_bytes(os.urandom(2**20))
        return log

    head.logs_of = change
    with pytest.raises(UserError, match=r"baseline/model\.onnx changed while it was fetched; fetch again"):
        fetch(jobs(head), str(there), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    fetch(jobs(head), str(there), tmp_path / "out")
    assert results(tmp_path / "out") == results(there)


def test_records_that_grow_meanwhile_come_as_they_were(head: Dashboard, there: Path, tmp_path: Path) -> None:
    def grow(number: int, log: str) -> str:
        with (there / "records.jsonl").open("ab") as file:
            file.write(b'{"id": 2}\n')
        return log

    head.logs_of = grow
    fetch(jobs(head), str(there), tmp_path / "out")
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == b'{"id": 1}\n'


def test_a_study_of_this_machine_is_not_overwritten(head: Dashboard, there: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study.yaml").write_text("mine")
    with pytest.raises(UserError, match="is there already and was not fetched from"):
        fetch(jobs(head), str(there), tmp_path / "out")
    assert files_below(tmp_path / "out").keys() == {"study.yaml"} and head.finished == []


def test_what_went_wrong_on_the_head_is_said(head: Dashboard, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no study in {tmp_path}/none on the cluster's head"):
        fetch(jobs(head), str(tmp_path / "none"), tmp_path / "out")


def test_a_cluster_that_goes_away_is_one_line(there: Path, tmp_path: Path) -> None:
    with dashboard(tmp_path / "jobs") as server:
        client = jobs(server)
    with pytest.raises(UserError, match="no longer answers"):
        fetch(client, str(there), tmp_path / "out")
