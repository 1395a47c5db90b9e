"""Every route of the OpenAPI document under schemathesis: no 5xx, answers as described, errors as problem documents."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi import checks as openapi_checks

from benchmarks.serving.app import quiet_settings, running
from benchmarks.serving.process import Service, service_process
from service.app import create_app
from tests.service import tiny_bundle, tiny_uplift

EXAMPLES = 240


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("fuzz")
    tiny_bundle.publish(folder / "models")
    tiny_uplift.publish(folder / "models", tiny_uplift.DOSED)
    settings = {"models.dir": folder / "models", "store.url": "memory://", "log.requests": False}
    with ExitStack() as stack:
        yield stack.enter_context(service_process(folder, settings))


def _operations() -> list[tuple[str, str]]:
    document = create_app(quiet_settings(Path("none"), "memory://")).openapi()
    return [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]


@pytest.mark.parametrize(("method", "path"), _operations(), ids=str)
def test_no_request_makes_the_service_fail(live: Service, method: str, path: str) -> None:
    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    operation = schema[path][method]
    examples = EXAMPLES if method == "POST" else 10

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def fuzz(case: schemathesis.Case) -> None:
        if case.headers is not None:  # a deadline of 1 ms is met with 504, which is right and not what is asked here
            case.headers.pop("X-Request-Deadline-Ms", None)
        reply = case.call(base_url=live.url)
        case.validate_response(reply, checks=CHECKS)
        if reply.status_code >= 400 and path != "/readyz":
            assert reply.headers["content-type"] == ["application/problem+json"], reply.text

    fuzz()


CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]


def test_the_examples_of_the_document_work(published: Path) -> None:
    async def run() -> list[httpx.Response]:
        async with running(quiet_settings(published, "memory://")) as client:
            document = (await client.get("/openapi.json")).json()
            assert document["openapi"].startswith("3.1")
            replies = []
            for path, methods in document["paths"].items():
                content = methods.get("post", {}).get("requestBody", {}).get("content", {})
                for example in content.get("application/json", {}).get("examples", {}).values():
                    replies.append(await client.post(path, json=example["value"]))
            return replies

    replies = asyncio.run(run())
    assert [reply.status_code for reply in replies if reply.url.path != "/uplift"] == [200, 200, 200, 200]
    assert [reply.status_code for reply in replies if reply.url.path == "/uplift"] == [404, 404]
