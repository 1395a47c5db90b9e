"""The manifest: what a bundle is, the graph's signature, and the digest and size of every other file."""

import json
import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from bundle.correct import Correction
from bundle.errors import BundleRefused
from bundle.schema import BUNDLE_NAME
from bundle.schema_messages import first_sentence
from bundle.treatment import DENSITY, UpliftPart
from bundle.versions import SEMVER

SCHEMA_VERSION: Final = 1
MANIFEST_FILE: Final = "manifest.json"
MAX_MANIFEST_BYTES: Final = 1024 * 1024
GRAPH_FILES: Final = {"onnx": "model.onnx", "torchscript": "model.ts"}
SAMPLES_FILES: Final = {"onnx": "samples.onnx", "torchscript": "samples.ts"}
# One plain name: no separator, no leading dot, so it can only mean a file directly inside the bundle.
FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TensorSpec(_Part):
    """One input or output of the graph; letters in `shape` are dynamic axes (U, C, T), numbers fixed ones."""

    name: str = Field(min_length=1)
    dtype: Literal["int64", "float32", "bool", "float64"]
    shape: tuple[str | int, ...]


class FileEntry(_Part):
    """Digest and size of one file of the bundle."""

    sha256: Sha256
    size: int = Field(ge=0)


class Manifest(_Part):
    """manifest.json. `files` lists every file but the manifest itself; `uplift` is there for that kind alone."""

    schema_version: Literal[1] = 1
    name: Annotated[str, StringConstraints(pattern=BUNDLE_NAME)]
    version: Annotated[str, StringConstraints(pattern=SEMVER)]
    kind: Literal["ctr", "uplift"]
    network: str = Field(min_length=1)
    network_config: dict[str, Any] = Field(default_factory=dict)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tasks: tuple[str, ...] = Field(min_length=1)
    correction: Correction = Correction()
    uplift: UpliftPart | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    data_fingerprint: str = ""
    created: str
    seed: int = 0
    libraries: dict[str, str] = Field(default_factory=dict)
    run: str = ""
    files: dict[str, FileEntry] = Field(default_factory=dict)

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if not FILE_NAME.fullmatch(name) or name == MANIFEST_FILE:
                raise ValueError(f"{name[:100]!r} is not the plain name of a file inside the bundle")
        return files

    @model_validator(mode="after")
    def _correction_of_known_tasks(self) -> Self:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError("tasks: a task is listed twice")
        unknown = set(self.correction.tasks) - set(self.tasks)
        if unknown:
            raise ValueError(f"correction.tasks: {sorted(unknown)} are no tasks of this bundle")
        return self

    @model_validator(mode="after")
    def _parts_of_the_kind(self) -> Self:
        if (self.uplift is not None) != (self.kind == "uplift"):
            raise ValueError("uplift: must be there for a bundle of kind uplift, and only there")
        if self.uplift is None:
            return self
        if self.tasks != (self.uplift.outcome.name,):
            raise ValueError(f"tasks: must be the outcome {self.uplift.outcome.name!r} alone")
        wanted = self.uplift.outputs
        named = tuple(output.name for output in self.outputs)
        # Behind the dose's curve a network that estimates it may give the density of the dose.
        if named != wanted and (not self.uplift.doses or named != (*wanted, DENSITY)):
            raise ValueError(f"outputs: must be {', '.join(wanted)}, got {', '.join(named)}")
        return self

    def to_text(self) -> str:
        """The file's content."""
        content = self.model_dump(mode="json", exclude={"uplift"} if self.uplift is None else None)
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def parse_manifest(text: bytes) -> Manifest:
    """Check the bytes of a manifest. The schema version comes first: another version may mean anything else.

    Raises:
        BundleRefused: manifest_damaged, schema_version.
    """
    try:
        data = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleRefused("manifest_damaged", f"{MANIFEST_FILE} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise BundleRefused("manifest_damaged", f"{MANIFEST_FILE} is not an object")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleRefused("schema_version", f"{MANIFEST_FILE} has a schema_version other than {SCHEMA_VERSION}")
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        raise BundleRefused("manifest_damaged", f"{MANIFEST_FILE}: {first_sentence(error, data)}") from error
