"""Places behind URLs: S3 over HTTP, a folder, and what fsspec knows, all the same; errors say what to do."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.errors import UserError
from search.storage.filesystems import check_sqlite, check_study_folder, kind_of
from search.storage.location import Location, meaning
from search.storage.urls import below, is_url, last_name, secret_in
from tests.buckets import Bucket, running_bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with running_bucket("places") as found:
        yield found


@pytest.fixture(params=["s3", "file", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Location:
    urls = {"s3": bucket.url("a/b"), "file": f"file://{tmp_path}/a/b", "memory": f"memory://{tmp_path.name}/a/b"}
    return Location(urls[request.param])


def test_what_is_put_there_is_found_read_and_removed(location: Location, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123456789" * 1_200_000)  # several parts of S3's
    assert location.entries() == {}
    assert location.read("x") is None and "x" not in location and not location.download("x", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    location.write("x", b"old")
    location.write("x", b"")
    location.write("deep/er/y", "é".encode())
    location.upload(source, "deep/z")
    files = {name: entry.size for name, entry in location.entries().items() if entry is not None}
    assert files == {"x": 0, "deep/er/y": 2, "deep/z": 12_000_000}
    assert {name: entry is None for name, entry in location.entries(recursive=False).items()} == {
        "x": False,
        "deep": True,
    }
    assert set(location.entries("deep/er")) == {"deep/er/y"}
    assert "x" in location and "deep" not in location
    assert location.read("deep/er/y") == "é".encode() and location.read("x") == b""
    assert pickle.loads(pickle.dumps(location)).download("deep/z", tmp_path / "new/z")  # noqa: S301 - its own
    assert (tmp_path / "new/z").read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["z"]
    location.delete("x")
    location.delete("x")
    assert location.read("x") is None


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """A reader that has the old file open goes on reading the old one."""
    location = Location(f"file://{tmp_path}/a")
    location.write("x", b"old")
    with (tmp_path / "a/x").open("rb") as reader:
        location.write("x", b"new")
        assert reader.read() == b"old"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_errors_say_what_to_do(bucket: Bucket) -> None:
    other = bucket.url("a", bucket="no-such-bucket")
    for ask in (lambda: Location(other).write("x", b""), lambda: Location(other).entries()):
        with pytest.raises(OSError, match="NO_SUCH_BUCKET") as found:
            ask()
        assert "there is no such bucket; make it first" in meaning(other, found.value)
    nobody = f"s3://{bucket.name}/a?scheme=http&endpoint_override=127.0.0.1:9&region=us-east-1"
    with pytest.raises(OSError, match="NETWORK_CONNECTION") as found:
        Location(nobody).read("x")
    assert "it does not answer" in meaning(nobody, found.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:word@bucket/a", "a URL with a password ends up in logs"),
        ("s3://bucket/a?secret_key=word", "a URL with secret_key ends up in logs"),
        ("nothing://bucket/a", "known are abfs://"),
        ("results/a", "is no URL"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        Location(url).entries()
    assert "word" not in str(found.value).replace("password", "")


def test_urls_as_text() -> None:
    assert is_url("s3://a/b") and is_url("gs://a") and not is_url("a/b") and not is_url("C:\\a") and not is_url(None)
    assert below("s3://a/b/?x=1&y=2", "c", "d") == "s3://a/b/c/d?x=1&y=2"
    assert last_name("s3://a/b/?x=/y") == "b"
    assert secret_in("postgresql://me@host/db") is None
    assert secret_in("postgresql://me:word@host/db") == "a password"
    assert secret_in("postgresql://host/db?user=me&password=word") == "password"


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
bucket /home/my\\040bucket fuse.s3fs rw 0 0
"""


def test_file_systems_that_lose_data_are_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert kind_of(Path("/var/x"), mounts) == "ext4"
    assert kind_of(Path("/home/me/x"), mounts) == "nfs4"
    assert kind_of(Path("/homes"), mounts) == "ext4"
    assert kind_of(Path("/home/local/x"), mounts) == "xfs"
    assert kind_of(Path("/x"), tmp_path / "none") == ""
    check_study_folder(Path("/home/me/study"), mounts)
    check_sqlite(Path("/home/local/x.db"), mounts)
    with pytest.raises(UserError, match=r"mounted bucket \(fuse.s3fs\).*give the bucket's own URL"):
        check_study_folder(Path("/home/my bucket/study"), mounts)
    with pytest.raises(UserError, match=r"shared file system \(nfs4\), where SQLite can be damaged"):
        check_sqlite(Path("/home/me/x.db"), mounts)
    assert kind_of(tmp_path)  # of this machine, really
