"""An S3 on this machine: moto's server, spoken to over HTTP by pyarrow's own S3FileSystem."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Bucket:
    """A bucket; what is in it outlives a stop of the server."""

    def __init__(self, name: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = name
        self._server: ThreadedMotoServer | None = None

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def make(self) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{self.name}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    def url(self, path: str, bucket: str | None = None) -> str:
        place = f"s3://{bucket or self.name}/{path}"
        return f"{place}?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"


@contextmanager
def running_bucket(name: str) -> Iterator[Bucket]:
    """A bucket while the block runs, with credentials in the environment."""
    bucket, before = Bucket(name), {key: os.environ.get(key) for key in CREDENTIALS}
    os.environ |= CREDENTIALS
    bucket.start()
    try:
        bucket.make()
        yield bucket
    finally:
        bucket.stop()
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
