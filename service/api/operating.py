"""GET /healthz, /readyz, /metrics and /models."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.openapi import READ_STATUSES, answers
from service.api.problems import to_json
from service.api.schemas import HealthReply, ModelsReply, ReadyReply
from service.board import Place
from service.container import Container
from service.core.registry import Failure, Slot
from service.metrics import CONTENT_TYPE

router = APIRouter()

_READY_STATUSES = (414, 431, 500)
EMPTY_STORE_HINT = "The model store is empty: run `ctrlift export RUN --to MODEL_STORE`; nothing has to be restarted."


def _json(content: object, status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json", headers={"Cache-Control": "no-store"})


@router.get("/healthz", responses=answers(HealthReply, _READY_STATUSES), tags=["operating"])
async def healthz() -> Response:
    """The process is alive; nothing else is looked at."""
    return _json({"status": "ok"})


@router.get(
    "/readyz",
    responses={
        **answers(ReadyReply, _READY_STATUSES),
        503: {
            "description": "Not ready; the body says why.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ReadyReply"}}},
        },
    },
    tags=["operating"],
)
async def readyz(request: Request) -> Response:
    """200 where requests will be answered; a store that is away degrades the service and does not stop it."""
    container: Container = request.app.state.container
    registry, store = container.registry, container.histories.state
    place: Place | None = getattr(request.app.state, "place", None)
    complete = place is None or place.board.complete
    checks = {
        "models": "ok" if registry.ready() else ("none_loaded" if registry.scanned else "loading"),
        "model_store": "ok" if registry.store_problem is None else "unreadable",
        "store": store,
        "draining": "yes" if container.admission.draining else "no",
        "workers": "ok" if complete else "starting",
    }
    store_missing = store != "ok" and container.settings.ready.require_store
    ready = registry.ready() and complete and not container.admission.draining and not store_missing
    degraded = store != "ok" or registry.store_problem is not None
    body: dict[str, Any] = {
        "status": ("degraded" if degraded else "ready") if ready else "not_ready",
        "checks": checks,
        "serving": {name: sorted(model.slots) for name, model in registry.view.items()},
        "refused": [
            {"model": failure.name, "version": failure.version, "reason": failure.reason}
            for failure in registry.failures
        ],
    }
    if not registry.view and not registry.failures:
        body["hint"] = EMPTY_STORE_HINT
    return _json(body, 200 if ready else 503)


@router.get(
    "/metrics",
    responses={200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    tags=["operating"],
)
async def metrics(request: Request) -> Response:
    """What the service measures, as Prometheus reads it."""
    container: Container = request.app.state.container
    return Response(container.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/models", responses=answers(ModelsReply, READ_STATUSES), tags=["operating"])
async def models(request: Request) -> Response:
    """Every version in the model store: whether it serves, and if not, why."""
    container: Container = request.app.state.container
    container.gate.check(request.headers, "read")
    registry, routes = container.registry, container.settings.routes
    failures = {(failure.name, failure.version): failure for failure in registry.failures}
    names = sorted(set(registry.view) | {name for name, _ in failures})
    return _json(
        {
            "models": [_model(container, name, failures) for name in names],
            "routes": {"score": routes.score, "uplift": routes.uplift},
        }
    )


def _model(container: Container, name: str, failures: dict[tuple[str, str], Failure]) -> dict[str, Any]:
    model = container.registry.view.get(name)
    if model is None:
        refused = [_refused(failure) for (owner, _), failure in failures.items() if owner == name]
        return {"name": name, "kind": None, "aliases": {}, "versions": refused}
    versions: list[dict[str, Any]] = []
    on_disk = [*model.on_disk, *(version for version in model.slots if version not in model.on_disk)]
    for version in on_disk:
        slot, failure = model.slots.get(version), failures.get((name, version))
        if slot is not None:
            versions.append(_serving(slot, default=version == model.newest))
        elif failure is not None:
            versions.append(_refused(failure))
        else:
            versions.append({"version": version, "state": "available", "default": False})
    return {"name": name, "kind": model.kind, "aliases": dict(model.aliases), "versions": versions}


def _serving(slot: Slot, *, default: bool) -> dict[str, Any]:
    manifest = slot.served.manifest
    shown: dict[str, Any] = {
        "version": manifest.version,
        "state": "serving",
        "default": default,
        "network": manifest.network,
        "tasks": list(manifest.tasks),
        "created": manifest.created,
        "metrics": manifest.metrics,
    }
    if slot.changed_on_disk:
        shown["reason"] = "version_immutable"
        shown["detail"] = "the files were changed after they were loaded; the version that was loaded goes on serving"
    return shown


def _refused(failure: Failure) -> dict[str, Any]:
    return {
        "version": failure.version,
        "state": "refused",
        "default": False,
        "reason": failure.reason,
        "detail": failure.detail,
    }
