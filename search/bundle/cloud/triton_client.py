"""Answers by a Triton server that runs the model of this bundle: all but the model itself is done here.

    docker run --rm -p 8000:8000 -v "$PWD/triton:/models" nvcr.io/nvidia/tritonserver:<version>-py3 \
        tritonserver --model-repository=/models
    python triton_client.py IMAGE [--url http://127.0.0.1:8000]

Prints what ``run.py --json`` prints. The server is asked by the KServe protocol, version 2, with the binary tensors of
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from frames import frames
from model import Model, Refused
from numpy.typing import NDArray

NAME = "yolo"
_TYPES: dict[str, Any] = {"FP32": np.float32, "FP16": np.float16}


class Remote(Model):
    """The model of this bundle with a server to run it."""

    def __init__(self, url: str) -> None:
        """Asks the server what it has. Raises Refused."""
        super().__init__()
        self._url = f"{url.rstrip('/')}/v2/models/{NAME}"
        about = json.loads(_asked(self._url)[0])
        self._input, self._output = about["inputs"][0], about["outputs"][0]

    def run(self, planes: NDArray[Any]) -> NDArray[Any]:
        """As ``Model.run``, on the server. Raises Refused."""
        tensor = np.ascontiguousarray(planes, dtype=_TYPES[self._input["datatype"]])
        head = {
            "inputs": [
                {
                    "name": self._input["name"],
                    "shape": list(tensor.shape),
                    "datatype": self._input["datatype"],
                    "parameters": {"binary_data_size": tensor.nbytes},
                }
            ],
            "outputs": [{"name": self._output["name"], "parameters": {"binary_data": True}}],
        }
        text = json.dumps(head).encode()
        body, length = _asked(f"{self._url}/infer", text + tensor.tobytes(), len(text))
        told = json.loads(body[:length])["outputs"][0]
        values = np.frombuffer(body[length:], dtype=_TYPES[told["datatype"]])
        return values.reshape(told["shape"])


def _asked(url: str, body: bytes | None = None, head: int = 0) -> tuple[bytes, int]:
    """The body of the answer, and how much of it is JSON."""
    headers = {"Inference-Header-Content-Length": str(head)} if body else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            content = answer.read()
            return content, int(answer.headers.get("Inference-Header-Content-Length", len(content)))
    except (OSError, ValueError) as error:
        said = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
        raise Refused(f"{url}: {error} {said}; is the server there, with the model repository triton?") from error


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", type=Path, metavar="IMAGE|FOLDER|VIDEO")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    given = parser.parse_args()
    try:
        model = Remote(given.url)
        for frame in frames(given.source):
            told = {"source": str(frame.file), "width": frame.pixels.shape[1], "height": frame.pixels.shape[0]}
            print(json.dumps(told | model.as_json(model.answer(frame.pixels))))
    except Refused as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
