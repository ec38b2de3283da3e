"""A study behind a URL: whoever is killed, away or late, no record is lost or doubled, and none lacks its file."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

import search.__main__  # noqa: F401 - all commands
from search.commands.app import app
from search.errors import UserError
from search.storage import lease as leases
from search.storage import mirror
from search.storage.hold import held
from search.storage.lease import NAME, Lease
from search.storage.location import Location
from search.storage.logs import LOGS
from search.storage.mirror import bring
from search.storage.push import Push
from search.storage.working import read_working, url_of, working_folder
from search.store import Store
from tests.buckets import Bucket, running_bucket
from tests.writer import append, content_of, ended, main, record_of, start, wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with running_bucket("mirror") as found:
        yield found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SETTLE", 0.05)
    monkeypatch.setattr(mirror, "PATIENCE", 0.5)


def ids(folder: Path) -> list[str]:
    """Of the records in the order of their lines, none doubled; each has its file, whole."""
    path = folder / "records.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for record in records:
        if artifact := record["artifact"] if record["id"] != "baseline" else None:
            assert hashlib.sha256((folder / artifact["path"]).read_bytes()).hexdigest() == artifact["sha256"]
    found = [record["id"] for record in records]
    assert len(set(found)) == len(found)
    return found


def there(url: str, place: Path) -> list[str]:
    """The records that a machine sees which has only the URL."""
    return ids(bring(url, work=place))


WANTED = ["baseline", *(record_of(number).id for number in range(60))]


def test_a_killed_driver_is_followed_elsewhere_from_the_url_alone(bucket: Bucket, tmp_path: Path) -> None:
    url = bucket.url("killed")
    first = start(url, 60, pause=0.05, work=tmp_path / "first")
    wait_for(first, 2)
    seen: list[str] = []
    for look in range(4):  # while it writes: a beginning, with every file
        now = there(url, tmp_path / "reader")
        assert now[: len(seen)] == seen, look
        seen = now
    wait_for(first, 40)
    first.send_signal(signal.SIGKILL)
    first.wait()
    killed = there(url, tmp_path / "after")
    assert killed == WANTED[: len(killed)] and 3 < len(killed) <= 43
    (tmp_path / "first").rename(tmp_path / "gone")
    main(url, str(tmp_path / "second"), "cats", 60, 0)
    assert there(url, tmp_path / "reader") == WANTED == ids(tmp_path / "second")
    started = (tmp_path / "reader" / "started.jsonl").read_text().splitlines()
    assert len(started) - len(WANTED) <= 1  # one may have been in flight
    assert (tmp_path / "reader" / "study.yaml").read_text() == (tmp_path / "second" / "study.yaml").read_text()


class Killed(BaseException):
    """A kill in the middle of sending."""


class Dying(Location):
    """Puts so many files there, then no more."""

    def __init__(self, url: str, left: int) -> None:
        super().__init__(url)
        self.left = left

    def upload(self, path: Path, name: str) -> None:
        self._count()
        super().upload(path, name)

    def write(self, name: str, content: bytes) -> None:
        self._count()
        super().write(name, content)

    def _count(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


@pytest.mark.parametrize("left", range(13))
def test_wherever_a_kill_falls_no_record_is_there_without_its_file(tmp_path: Path, left: int) -> None:
    url, work = f"file://{tmp_path}/there", tmp_path / "first"
    working_folder(url, work)
    dying = Dying(url, left)
    push = Push(read_working(work), dying, {name: [] for name in LOGS})
    with suppress(Killed):
        for number in range(5):
            append(Store(work), work, number)
            if number != 2:
                push.send()
    found = there(url, tmp_path / "reader")
    assert found == WANTED[1:6][: len(found)] and len(found) < 5
    with held(work):
        pass
    assert there(url, tmp_path / "reader") == ids(work)


def test_a_second_driver_is_refused_and_may_read(bucket: Bucket, tmp_path: Path) -> None:
    url = bucket.url("two")
    first = start(url, 30, pause=0.1, work=tmp_path / "first")
    wait_for(first, 0)
    with pytest.raises(UserError, match=rf"in use by another search, process {first.pid} on .* taken over"):
        main(url, str(tmp_path / "second"), "cats", 1, 0)
    assert bring(url, work=tmp_path / "first") == tmp_path / "first"  # not touched, as it is in use
    ended(first)
    main(url, str(tmp_path / "second"), "cats", 31, 0)  # it was given back at the end
    assert there(url, tmp_path / "reader") == WANTED[:32]


def test_a_place_that_is_away_for_a_while_has_everything_in_the_end(bucket: Bucket, tmp_path: Path) -> None:
    url = bucket.url("away")
    driver = start(url, 150, pause=0.15, work=tmp_path / "first")
    wait_for(driver, 3)
    bucket.stop()
    try:
        assert driver.stderr is not None
        said = driver.stderr.readline()  # pyarrow tries for some seconds by itself
        assert "does not answer" in said and f"{tmp_path / 'first'} has everything" in said
        during = len(ids(tmp_path / "first"))
    finally:
        bucket.start()
    assert "does not answer" not in ended(driver)
    found = there(url, tmp_path / "reader")
    assert len(found) == 151 > during and found == ids(tmp_path / "first")


def test_what_could_not_be_sent_is_named_and_sent_later(bucket: Bucket, tmp_path: Path) -> None:
    url, work = bucket.url("late"), tmp_path / "first"
    main(url, str(work), "cats", 3, 0)
    with pytest.raises(UserError, match=rf"does not answer.*{work} does: `python -m search sync '.*late.*' --work"):
        append_while_away(bucket, work, 3)
    bucket.start()
    Location(url).delete(NAME)  # the driver's process would be gone now, and its lease with it
    assert there(url, tmp_path / "reader") == WANTED[:4]
    done = CliRunner().invoke(app, ["sync", url, "--work", str(work), "--json"])
    assert json.loads(done.stdout) == {"folder": str(work), "study": True}, done
    assert there(url, tmp_path / "reader") == WANTED[:5]


def append_while_away(bucket: Bucket, work: Path, number: int) -> None:
    with held(work):
        bucket.stop()
        append(Store(work), work, number)


def append_while_taken_over(url: str, work: Path, number: int) -> None:
    with held(work):
        forged(url, "1")
        append(Store(work), work, number)
        time.sleep(0.2)


def test_two_folders_that_went_apart_lose_nothing(bucket: Bucket, tmp_path: Path) -> None:
    """The first was killed with records that the URL did not have; the study went on elsewhere, and then here."""
    url, first = bucket.url("apart"), tmp_path / "first"
    main(url, str(first), "cats", 3, 0)
    for number in (3, 4, 10):
        append(Store(first), first, number)  # not sent
    second = tmp_path / "second"
    bring(url, work=second)
    with held(second):
        store = Store(second)
        for number in (7, 4, 8):
            append(store, second, number)
        artifact = second / "artifacts" / record_of(4).id / "model.onnx"
        artifact.write_bytes(content_of(99))  # as large, and not the same: it was made again
        other = ids_without_check(second)
    with held(first):
        pass
    assert ids_without_check(first) == [*other, record_of(3).id, record_of(10).id]
    assert (first / "artifacts" / record_of(4).id / "model.onnx").read_bytes() == content_of(99)
    assert ids_without_check(bring(url, work=tmp_path / "reader")) == ids_without_check(first)


def ids_without_check(folder: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (folder / "records.jsonl").read_text().splitlines()]


def test_only_what_is_new_is_sent_and_brought(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, work = bucket.url("new"), tmp_path / "first"
    (tmp_path / "first").mkdir()
    working_folder(url, tmp_path / "second")
    work.rmdir()
    main(url, str(work), "cats", 12, 0)
    (work / "cache").mkdir()
    (work / "cache" / "x").write_text("stays here")
    (work / "report.html").write_text("one")
    (work / "optuna.log").write_text("stays here")
    moved: list[str] = []

    def noting(name: str, of: str) -> None:
        before = getattr(Location, of)

        def noted(self: Location, *arguments: object) -> object:
            moved.append(f"{name} {next(a for a in arguments if isinstance(a, str))}")
            return before(self, *arguments)

        monkeypatch.setattr(Location, of, noted)

    noting("up", "upload")
    noting("down", "download")
    with held(work):
        (work / "report.html").write_text("two")
    assert moved == ["up report.html"]
    moved.clear()
    bring(url, work=tmp_path / "second", whole=False)
    assert "down report.html" in moved and not any("artifacts" in name for name in moved)
    bring(url, work=tmp_path / "second")
    files = len(moved)
    assert sum("artifacts" in name for name in moved) == 12
    bring(url, work=tmp_path / "second")
    assert len(moved) == files
    time.sleep(1.1)  # S3 says when an object was written to the second
    with held(work):
        (work / "report.html").write_text("six")  # as large as before
    bring(url, work=tmp_path / "second")
    assert moved[files:] == ["up report.html", "down report.html"]
    assert not (tmp_path / "second" / "cache").exists() and not (tmp_path / "second" / "optuna.log").exists()


def forged(url: str, turn: str) -> None:
    """The lease of a driver on another machine."""
    content = {"owner": "o", "turn": turn, "writer": "w", "host": "node7", "pid": 1, "machine": "another"}
    Location(url).write(NAME, json.dumps(content).encode())


def test_a_lease_that_is_not_renewed_is_taken_over_and_one_that_is_renewed_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "ABANDONED", 0.6)
    monkeypatch.setattr(leases, "LOOK", 0.05)
    url = f"file://{tmp_path}/there"
    forged(url, "1")
    began = time.monotonic()
    own = Lease(Location(url), "me")
    own.acquire()
    assert time.monotonic() - began >= 0.6 and own.before == "w"
    own.release()
    assert own.before == "w"
    forged(url, "1")
    alive = threading.Timer(0.3, forged, (url, "2"))
    alive.start()
    with pytest.raises(UserError, match="process 1 on node7"):
        Lease(Location(url), "me").acquire()
    alive.join()


def test_a_driver_that_was_taken_over_sends_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, work = f"file://{tmp_path}/there", tmp_path / "first"
    main(url, str(work), "cats", 2, 0)
    monkeypatch.setattr(leases, "RENEW", 0.0)
    with pytest.raises(UserError, match=rf"taken over by node7.*is kept in {work}"):
        append_while_taken_over(url, work, 2)
    assert there(url, tmp_path / "reader") == WANTED[:3]
    assert ids(work) == WANTED[:4]


def test_of_two_that_come_at_once_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SETTLE", 0.5)
    held_by: list[int] = []

    def take(number: int) -> None:
        try:
            Lease(Location(f"file://{tmp_path}/there"), str(number)).acquire()
        except UserError:
            return
        held_by.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held_by) == 1


def test_a_working_folder_belongs_to_one_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = working_folder("s3://bucket/studies/cats?region=x")
    assert own.is_relative_to(tmp_path / "cache") and own.name.startswith("cats-")
    assert working_folder("s3://bucket/studies/cats?region=x") == own != working_folder("s3://other/studies/cats")
    assert url_of(own) == "s3://bucket/studies/cats?region=x" and url_of(tmp_path) is None
    with pytest.raises(UserError, match="is the working folder of s3://bucket/studies/cats"):
        working_folder("s3://other/x", own)
    with pytest.raises(UserError, match="is not empty"):
        working_folder("s3://other/x", tmp_path)
    assert [path.name for path in own.iterdir()] == [".url.json"]
