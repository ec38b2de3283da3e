"""The model of this bundle as a Ray Serve application.

    python server.py        # with limits at the door, metrics and a graceful stop
    serve run app:app       # the application alone

``POST /predict`` with a picture as the body gives boxes or classes, ``GET /health`` says whether the model answers,
``/openapi.json`` describes both and ``/`` shows them.
"""

# No annotations of the future here: FastAPI reads them.
import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse
from frames import frames
from model import FOLDER, Model, Refused
from numpy.typing import NDArray
from pictures import TYPES, BadPicture, check_type, read_picture
from pydantic import BaseModel, Field
from ray import serve
from settings import Settings

BATCHED = Path("triton", "yolo", "1", "model.onnx")  # the same model for any number of pictures
STAGES = FOLDER / "stages"  # the same model in parts, if it is to run as a pipeline
_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "No picture, or a broken one"},
    408: {"description": "It took too long"},
    413: {"description": "Too many bytes or pixels"},
    415: {"description": "The body is of another type"},
    503: {"description": "Too busy, or stopping; the header Retry-After says when to come again"},
}


class Box(BaseModel):
    """Something that was found: left, top, right and bottom in pixels of the picture."""

    label: str
    number: int = Field(alias="class")
    score: float
    box: tuple[float, float, float, float]


class Likely(BaseModel):
    """A class, and how likely it is."""

    label: str
    number: int = Field(alias="class")
    score: float


class Boxes(BaseModel):
    """What a detector says of a picture; ``ms`` is from the body to the boxes."""

    width: int
    height: int
    ms: float
    boxes: list[Box]


class Classes(BaseModel):
    """What a classifier says of a picture: the likeliest first; ``ms`` is from the body to the classes."""

    width: int
    height: int
    ms: float
    classes: list[Likely]


api = FastAPI(
    title="A YOLO model",
    description="A picture in, boxes or classes out. `GET /metrics` is in the format of Prometheus.",
    docs_url=None,  # FastAPI's own pages load scripts from elsewhere
    redoc_url=None,
)


# Ray Serve pickles the class below when it is made, with what is there by then.
def _load(settings: Settings) -> Model:
    """The model in the form in which it is to run. Raises Refused."""
    if STAGES.is_dir():
        from piped import Piped  # there only then

        return Piped(STAGES)
    several = settings.batch > 1 and (FOLDER / BATCHED).is_file()
    return Model(threads=settings.threads or None, file=str(BATCHED) if several else None)


@serve.deployment
@serve.ingress(api)
class Predictor:
    """A copy of the model. It is there only once the model has answered its sample as it should."""

    def __init__(self, settings: Settings) -> None:
        """Loads the model. Raises Refused if it does not answer as it should."""
        self._model = _load(settings)
        self._megapixels = settings.megapixels
        self._work = ThreadPoolExecutor(2)  # that decode: more would hold more large pictures at once
        batching: Any = self._batch  # what serve.batch adds is not in its type
        batching.set_max_batch_size(settings.batch)
        batching.set_batch_wait_timeout_s(settings.wait_ms / 1000)
        [sample] = frames(FOLDER / self._model.about["sample"]["image"])
        apart = self._model.sample_differences(self._model.answer(sample.pixels))
        if not self._model.as_expected(apart):
            raise Refused(f"the model does not answer the sample as it should here: it is off by {apart}")

    @api.post(
        "/predict",
        response_model=Boxes | Classes,
        responses=_REFUSALS,
        openapi_extra={"requestBody": {"required": True, "content": dict.fromkeys(TYPES, _PICTURE)}},
    )
    async def predict(self, request: Request) -> JSONResponse:
        """Boxes or classes of the picture in the body."""
        start, loop = time.perf_counter(), asyncio.get_running_loop()
        try:
            check_type(request.headers.get("content-type", ""))
            body = await request.body()
            shape, planes, placement = await loop.run_in_executor(self._work, self._before, body)
        except BadPicture as error:
            raise HTTPException(error.status, str(error)) from error
        waiting = time.perf_counter()
        output, batch, begun = await self._batch(planes)
        answer = await loop.run_in_executor(self._work, self._model.after, output, placement)
        told = {"width": shape[1], "height": shape[0], "ms": round(1000 * (time.perf_counter() - start), 3)}
        headers = {"x-batch-size": str(batch), "x-wait-ms": f"{1000 * (begun - waiting):.3f}"}
        return JSONResponse(told | self._model.as_json(answer), headers=headers)

    @api.get("/health")
    async def health(self) -> dict[str, str]:
        """200 if the model answers."""
        about = self._model.about
        return {"status": "ready", "model": about["name"], "record": about["record"]}

    @api.get("/", include_in_schema=False)
    async def page(self) -> HTMLResponse:
        """A page to try it."""
        return HTMLResponse((FOLDER / "page.html").read_text(encoding="utf-8"))

    def check_health(self) -> None:
        """Raises Refused if the model cannot answer any more: Ray Serve then starts another copy."""
        self._model.check()

    def _before(self, body: bytes) -> tuple[tuple[int, ...], NDArray[np.float32], Any]:
        pixels = read_picture(body, self._megapixels)
        return pixels.shape, *self._model.before(pixels)

    @serve.batch
    async def _batch(self, planes: list[NDArray[np.float32]]) -> list[tuple[NDArray[Any], int, float]]:
        """Of each picture the output, how many were run at once, and when."""
        begun = time.perf_counter()
        outputs = await asyncio.to_thread(self._model.run, np.concatenate(planes))
        return [(outputs[number : number + 1], len(planes), begun) for number in range(len(planes))]


def application(settings: Settings, threads: int) -> serve.Application:
    """As many copies as ``settings`` say, behind a queue that is refused beyond its length."""
    return Predictor.options(
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.ongoing,
        max_queued_requests=settings.queued,
        backpressure_config={"retry_after_s": 1},
        ray_actor_options={"num_cpus": threads},
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=2,  # a copy is replaced after three checks in a row that failed
        max_constructor_retry_count=1,
    ).bind(settings)


_settings = Settings.read(os.environ)
threads = len(list(STAGES.glob("*.onnx"))) or _settings.threads or Model().threads
app = application(_settings, threads)
