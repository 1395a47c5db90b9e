"""The container files against the code: every path, setting, port, URL and user in them, without a container engine."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import PREFIX, described, load_settings

ROOT = Path(__file__).parents[2]
SETTINGS = {f"{PREFIX}{key.upper().replace('.', '__')}": default for key, (default, _) in described().items()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXACT_TAG = re.compile(r"^[a-z0-9./-]+:\d+\.\d+\.\d+(-[a-z0-9.-]+)?$")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continued lines joined, comments dropped."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            name = rest.split(" AS ")[1]
            found[name] = []
        elif name:
            found[name].append((word, rest))
    return found


def variables(stage: str) -> dict[str, str]:
    pairs = [token for word, rest in stages()[stage] if word == "ENV" for token in shlex.split(rest)]
    return dict(pair.split("=", 1) for pair in pairs)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def published(service: dict[str, Any]) -> tuple[str, str, str]:
    (port,) = service["ports"]
    host, outside, inside = port.split(":")
    return host, outside, inside


def test_every_copied_path_exists_and_is_in_the_build_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source.rstrip("/")
        for word, rest in instructions()
        if word in {"COPY", "ADD"} and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source in allowed, f"{source} is shut out by .dockerignore"


def test_every_package_of_the_wheel_is_copied() -> None:
    copied = {rest.split()[0].rstrip("/") for word, rest in stages()["wheel"] if word == "COPY"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks", "breakages"}
    assert packages <= copied
    assert packages == {"bundle", "cli", "models", "service", "training"}


def test_stages_build_on_each_other() -> None:
    assert list(stages()) == ["wheel", "base", "training", "service"], "the last stage is the default image"
    for word, rest in instructions():
        if word == "COPY" and rest.startswith("--from="):
            assert rest.split()[0].removeprefix("--from=") in stages()


def test_the_base_image_is_an_exact_tag_that_an_argument_replaces() -> None:
    first = instructions()[0]
    assert first[0] == "ARG"
    name, image = first[1].split("=")
    assert EXACT_TAG.match(image), image
    outside = [rest.split()[0] for word, rest in instructions() if word == "FROM" and not rest.startswith("base ")]
    assert set(outside) == {f"${{{name}}}"}


def test_images_do_not_run_as_root() -> None:
    made = next(rest for word, rest in stages()["base"] if word == "RUN" and rest.startswith("useradd"))
    uid = re.search(r"--uid (\d+)", made)
    assert uid is not None
    for stage in ("training", "service"):
        users = [rest for word, rest in stages()[stage] if word == "USER"]
        assert users == [f"{uid[1]}:{uid[1]}"]


def test_only_the_training_image_installs_torch() -> None:
    installs = {
        stage: [rest for word, rest in lines if word == "RUN" and "pip install" in rest]
        for stage, lines in stages().items()
    }
    wheel = f"/opt/wheels/ctrlift-{PROJECT['version']}-py3-none-any.whl"
    assert f'"{wheel}[train]"' in installs["training"][0]
    assert installs["service"][0].endswith(f" {wheel}"), "the service image has no extras, so no torch"
    assert not any(requirement.startswith("torch") for requirement in PROJECT["dependencies"])
    for stage in ("training", "service"):
        assert "${PIP_ARGS}" in installs[stage][0]
        assert "--constraint /opt/constraints.txt" in installs[stage][0]


def test_dockerfile_settings_port_and_health_url() -> None:
    set_here = {name: value for name, value in variables("service").items() if name.startswith(PREFIX)}
    assert set_here.keys() <= SETTINGS.keys()
    lines = dict(stages()["service"])
    assert lines["EXPOSE"] == set_here["CTRLIFT_SERVER__PORT"] == str(SETTINGS["CTRLIFT_SERVER__PORT"])
    assert f"http://127.0.0.1:{lines['EXPOSE']}/healthz" in lines["HEALTHCHECK"]
    assert json.loads(lines["ENTRYPOINT"]) == ["ctrlift"]
    assert json.loads(lines["CMD"]) == ["serve"]


def test_compose_settings_are_settings_and_load(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    environment = compose["services"]["service"]["environment"]
    assert environment.keys() <= SETTINGS.keys()
    for name, value in {**variables("service"), **environment}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.auth.mode == "off"
    assert str(settings.models.dir) == "/bundles"
    assert settings.store.url == "redis://store:6379/0"


def test_the_image_alone_refuses_to_listen_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.errors import SettingsError

    for name, value in variables("service").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"auth\.mode"):
        load_settings()


def test_compose_publishes_on_loopback_only(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if "ports" in service:
            host, _, inside = published(service)
            assert host == "127.0.0.1", name
            if name == "service":
                assert inside == service["environment"]["CTRLIFT_SERVER__PORT"]


def test_compose_store_url_names_a_service_that_is_waited_for(compose: dict[str, Any]) -> None:
    service = compose["services"]["service"]
    host = re.match(r"redis://([^:/]+):(\d+)/0", service["environment"]["CTRLIFT_STORE__URL"])
    assert host is not None
    assert host[1] in compose["services"]
    assert service["depends_on"][host[1]]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", ["service", "store", "proxy"])
def test_compose_services_are_locked_down(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(entry.startswith("/tmp") for entry in service["tmpfs"])
    assert service["healthcheck"]["test"][0] == "CMD"
    if name != "service":  # the service's user stands in its Dockerfile
        assert service["user"] not in {"0", "root"}
        image = re.match(r"^\$\{[A-Z_]+:-(.+)\}$", service["image"])
        assert image is not None
        assert EXACT_TAG.match(image[1]), image[1]


def test_compose_builds_the_service_stage_and_mounts_the_model_store(compose: dict[str, Any]) -> None:
    service = compose["services"]["service"]
    assert service["build"]["target"] in stages()
    (mount,) = service["volumes"]
    assert (ROOT / mount["source"]).is_dir()
    assert mount["read_only"] is True
    assert mount["target"] == service["environment"]["CTRLIFT_MODELS__DIR"]
    port = service["environment"]["CTRLIFT_SERVER__PORT"]
    assert f"http://127.0.0.1:{port}/healthz" in service["healthcheck"]["test"][-1]


def test_health_urls_are_routes_of_the_service() -> None:
    from service.app import create_app

    paths = create_app(load_settings()).openapi()["paths"]
    assert "/healthz" in paths
    assert "/readyz" in paths


def test_an_empty_model_store_says_how_to_fill_it(tmp_path: Path) -> None:
    """What the compose file starts with: ./bundles as it is in a fresh clone."""
    from starlette.testclient import TestClient

    from service.app import create_app

    assert [path.name for path in (ROOT / "bundles").iterdir() if not path.name.startswith(".")] == []
    settings = load_settings(None, {"models": {"dir": tmp_path}, "store": {"url": "memory://"}})
    with TestClient(create_app(settings)) as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "ctrlift export" in ready.text


def test_proxy_forwards_to_the_service_with_the_services_limits(compose: dict[str, Any]) -> None:
    proxy = compose["services"]["proxy"]
    for mount in proxy["volumes"]:
        assert (ROOT / mount["source"]).is_file()
    config = (ROOT / "docker" / "nginx.conf").read_text()
    port = compose["services"]["service"]["environment"]["CTRLIFT_SERVER__PORT"]
    assert f"server service:{port};" in config
    assert f"listen {published(proxy)[2]};" in config
    assert f"client_max_body_size {SETTINGS['CTRLIFT_SERVER__MAX_BODY_BYTES'] // 2**20}m;" in config
    assert f"client_body_timeout {SETTINGS['CTRLIFT_SERVER__READ_TIMEOUT_S']:.0f}s;" in config
    assert f"keepalive_timeout {SETTINGS['CTRLIFT_SERVER__KEEP_ALIVE_S']}s;" in config
    assert f"4 {SETTINGS['CTRLIFT_LIMITS__HEADER_BYTES'] // 1024}k;" in config
