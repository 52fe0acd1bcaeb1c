"""The application: routes, their documents, and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from softcam._version import __version__
from softcam.attribution import METHODS
from softcam.interop.dicom import KINDS
from softcam.serving.documents import DICOM, EXPLAIN, METHOD, MODEL, MODELS, NUMBERS, REFUSALS, UPLOAD, refusals
from softcam.serving.gate import Gate
from softcam.serving.models import ServedModel
from softcam.serving.problems import Problem, to_answer
from softcam.serving.service import Service
from softcam.serving.settings import ServiceSettings
from softcam.serving.telemetry import Telemetry
from softcam.serving.uploads import read_files
from softcam.viewer import read_index, read_static

_KIND_OF_STATUS = {400: "bad-request", 404: "not-found", 405: "method-not-allowed"}
_UNUSABLE = refusals(400, 413, 415, 422)

ModelName = Annotated[str | None, Query(alias="model", description="Name of a model; default: the first.")]
Frame = Annotated[int | None, Query(ge=1, le=1_000_000, description="Which frame of a DICOM file, from 1.")]
Preview = Annotated[bool, Query(description="Send the picture along, as the network's original was decoded.")]


def create_app(models: Sequence[ServedModel], settings: ServiceSettings | None = None) -> FastAPI:
    """Return the application of a service.

    Args:
        models: What `open_models` gave; the first one answers where a client names none.
        settings: Who may ask, and what it may cost; default: this machine alone, with the usual limits.

    Returns:
        An ASGI application, every request of which passes the gate.

    Raises:
        OSError: If the store cannot be written.
    """
    chosen = settings or ServiceSettings()
    telemetry = Telemetry()
    service = Service(models, chosen, telemetry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="softcam",
        version=__version__,
        summary="Predictions with the evidence that they are the sum of.",
        description=REFUSALS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    _add_explanations(app, service)
    _add_comparisons(app, service)
    _add_models(app, service)
    _add_health(app, service)
    _add_page(app)
    _add_errors(app)
    app.add_middleware(Gate, access=chosen.access, limits=chosen.limits, telemetry=telemetry)
    return app


def _add_explanations(app: FastAPI, service: Service) -> None:
    limits = service.settings.limits

    @app.post("/v1/explain", responses={200: EXPLAIN, **_UNUSABLE}, openapi_extra=UPLOAD, tags=["explain"])
    async def explain(
        request: Request,
        model: ModelName = None,
        frame: Frame = None,
        preview: Preview = False,  # noqa: FBT002 - a query
    ) -> Response:
        """Predict one image, or several, with the evidence of each prediction."""
        chosen = service.find(model)
        files = await read_files(request, limits.max_files)
        request_id = request.state.request_id
        if len(files) > 1:
            if frame is not None:
                raise Problem("unusable", "`frame` is of one file; send it alone")
            found = await service.explain_several(files, chosen, preview=preview, request_id=request_id)
            return _respond(found)
        one = await service.explain(files[0], chosen, frame=frame, preview=preview, request_id=request_id)
        timing = (
            f"decode;dur={1000 * one.decode_seconds:.1f}, queue;dur={1000 * one.timed.queue_seconds:.1f}, "
            f"model;dur={1000 * one.timed.model_seconds:.1f}"
        )
        return _respond(one.document, {"server-timing": timing})


def _add_comparisons(app: FastAPI, service: Service) -> None:
    @app.post("/v1/attribute", responses={200: METHOD, **_UNUSABLE}, openapi_extra=UPLOAD, tags=["explain"])
    async def attribute(
        request: Request,
        target: Annotated[int, Query(ge=0, description="Index of the class to explain.")],
        method: Annotated[str, Query(description="A post-hoc method of the model.")] = "grad_cam",
        model: ModelName = None,
        frame: Frame = None,
    ) -> Response:
        """Ask a post-hoc method where it sees reasons for a class, to compare it with the evidence."""
        chosen = service.find(model)
        (content,) = await read_files(request, 1)
        found = await service.attribute(content, chosen, method=method, target=target, frame=frame)
        about = {"method": method, "title": METHODS[method].title, "notes": METHODS[method].notes, "target": target}
        return _respond({**about, "grid": list(found.shape), "map": found})

    @app.post(
        "/v1/dicom",
        responses={200: DICOM, **_UNUSABLE},
        response_class=Response,
        openapi_extra=UPLOAD,
        tags=["explain"],
    )
    async def make_objects(
        request: Request,
        kinds: Annotated[list[str] | None, Query(description="Some of map, segmentation, report, capture.")] = None,
        model: ModelName = None,
        frame: Frame = None,
    ) -> Response:
        """Return DICOM objects of a prediction, as a ZIP archive; of DICOM files alone."""
        wanted = list(dict.fromkeys(kinds or KINDS))
        if not set(wanted) <= set(KINDS):
            raise Problem("unusable", f"`kinds` are some of {', '.join(KINDS)}")
        chosen = service.find(model)
        (content,) = await read_files(request, 1)
        archive = await service.make_objects(
            content, chosen, frame=frame, kinds=wanted, request_id=request.state.request_id
        )
        name = {"content-disposition": 'attachment; filename="evidence.zip"'}
        return Response(archive, media_type="application/zip", headers=name)


def _add_models(app: FastAPI, service: Service) -> None:
    limits = service.settings.limits

    @app.get("/v1/model", responses={200: MODEL, **refusals(422)}, tags=["models"])
    async def describe_model(model: ModelName = None) -> Response:
        """Describe one model: its classes, its input, and what a cell of its maps sees."""
        return _respond(service.find(model).describe(limits))

    @app.get("/v1/models", responses={200: MODELS, **refusals()}, tags=["models"])
    async def describe_models() -> Response:
        """Describe every model."""
        return _respond({"default": service.default, "models": [m.describe(limits) for m in service.models.values()]})


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["health"])
    async def is_alive() -> dict[str, str]:
        """Answer as long as the process does."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], responses=refusals(503))
    async def is_ready() -> dict[str, str]:
        """Answer whether requests are taken."""
        if not service.ready:
            raise Problem("overloaded", "the service is starting or ending")
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"], responses={200: NUMBERS, **refusals()}, response_class=Response)
    async def expose_metrics() -> Response:
        """Return the service's numbers for Prometheus."""
        text, media_type = service.telemetry.expose()
        return Response(text, media_type=media_type)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def show_page() -> Response:
        """Return the viewer."""
        page = read_index()
        return Response(page.content, media_type=page.media_type)

    @app.get("/static/{name:path}", include_in_schema=False)
    async def show_file(name: str) -> Response:
        """Return a file of the viewer; a name that is not one of them is no path on the disk either."""
        try:
            file = read_static(name)
        except KeyError:
            raise Problem("not-found", "there is no such file") from None
        return Response(file.content, media_type=file.media_type, headers={"cache-control": "no-cache"})


def _add_errors(app: FastAPI) -> None:
    def respond(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
        answer = to_answer(problem, request.state.request_id, extra=headers)
        return Response(answer.body, answer.status, {name.decode(): value.decode() for name, value in answer.headers})

    @app.exception_handler(Problem)
    async def refuse(request: Request, problem: Problem) -> Response:
        return respond(request, problem)

    @app.exception_handler(HTTPException)
    async def refuse_http(request: Request, error: HTTPException) -> Response:
        kind = _KIND_OF_STATUS.get(error.status_code, "bad-request")
        texts = {
            "not-found": "there is nothing here; see /openapi.json",
            "method-not-allowed": "another method is needed",
        }
        detail = texts.get(kind, "the request cannot be understood")
        return respond(request, Problem(kind, detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def refuse_values(request: Request, error: RequestValidationError) -> Response:
        faults = "; ".join(f"`{fault['loc'][-1]}`: {fault['msg'].lower()}" for fault in error.errors())
        return respond(request, Problem("unusable", faults))

    @app.exception_handler(Exception)
    async def fail(request: Request, _: Exception) -> Response:
        return respond(request, Problem("failed", "the service failed; its log has the request under this id"))


def _respond(values: Any, headers: dict[str, str] | None = None) -> Response:
    # Numbers are written with the fewest digits from which float32 is read back exactly.
    body = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json", headers=headers)
