"""One TOML file, read once into typed sections.

The declarations of the data (label, ids, treatment, weight, feature, group, tables, bundle) are the bundle's business
and are handed to its schema; the sections here say where the rows come from and how the network is trained on them.
Which sections there are for click models and which for treatment effects: config_kinds.py.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bundle.errors import SchemaError
from bundle.schema import FeatureSchema
from training.config_kinds import check_kind, sections_of, with_kind_defaults
from training.config_text import apply_override, first_problem, suggestion
from training.errors import ConfigError
from training.objectives.invariance_settings import InvarianceSection

FUNNEL_TASKS: Final = frozenset({"ctr", "cvr"})
BOTH: Final = "ctcvr"
SCHEMA_SECTIONS: Final = ("label", "ids", "treatment", "weight", "feature", "group", "tables", "bundle")

Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values are not changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Split(Section):
    """How rows become train, valid and test.

    `by = "time"`: the oldest rows train, the newest test, and rows of one second never part. `column` instead names a
    column that says train, valid or test. `by = "random"` draws the test rows with `seed`; it is for treatment effects
    alone, whose default it is, and whose `valid` is a share of the rows that are not tested, drawn arm by arm.
    """

    by: Literal["time", "random"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    column: str | None = None
    valid: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> Self:
        if self.seed is not None and self.by != "random":
            raise ValueError("seed needs by = 'random'")
        if self.valid + self.test >= 1:
            raise ValueError("valid and test together must leave rows to train on")
        return self


class RowHistory(Section):
    """Columns of the rows that hold each row's own history as lists, oldest first.

    `sep` splits columns that hold lists as text (CSV).
    """

    item: str
    time: str
    type: str | None = None
    value: str | None = None
    sep: str = "|"


class DataSection(Section):
    """Where the rows, items, users and behaviours come from: a data set known by name, or files.

    Relative paths start at the folder of the configuration file. `replication` says which of the data sets that one
    name stands for: a replication, a simulation, the seed of a split.
    """

    dataset: str | None = None
    path: str | None = None
    replication: Annotated[int, Field(ge=0)] | None = None
    rows: str | None = None
    items: str | None = None
    users: str | None = None
    events: str | None = None
    event_type: str | None = None
    event_value: str | None = None
    history: RowHistory | None = None
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    split: Split = Split()

    @model_validator(mode="before")
    @classmethod
    def _split_named_by_its_column(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("split"), str):
            return {**value, "split": {"column": value["split"]}}
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        files = [name for name in ("rows", "items", "users", "events", "history") if getattr(self, name) is not None]
        if self.dataset is not None and files:
            raise ValueError(f"dataset and {files[0]} exclude each other")
        if self.dataset is None and self.rows is None:
            raise ValueError("needs dataset (a data set known by name) or rows (a Parquet or CSV file)")
        if self.dataset is None and self.replication is not None:
            raise ValueError("replication belongs to dataset; a file of your own has none")
        if self.dataset is None and self.path is not None:
            raise ValueError("path belongs to dataset; give rows for a file of your own")
        if self.events is not None and self.history is not None:
            raise ValueError("events (one log for all users) and history (lists in the rows) exclude each other")
        return self


class ModelSection(BaseModel):
    """Which network; every further key of the section is a field of that network's own configuration."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    network: str = "dien"
    embedding_size: Annotated[int, Field(ge=1)] = 16

    @property
    def options(self) -> dict[str, Any]:
        """The network's own fields, checked by its configuration class when the network is built."""
        return dict(self.model_extra or {})


class TrainSection(Section):
    """The fit. `weight_decay` is by embedding table, with `default` for everything else; `warmup` a share of steps.

    `learning_rate_scale` multiplies the learning rate of single embedding tables. The auxiliary loss counts
    `auxiliary_alpha` times and looks at `auxiliary_share` of each batch's rows.

    `validate_every` and `checkpoint_every` count steps; 0 means at the end of each epoch. `sequence_dropout` is the
    share of training rows whose history is emptied, so that users without one are scored well too.

    The losses of several tasks are added with `task_weights`, or with weights that `task_weighting` learns.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Annotated[int, Field(ge=1)] = 256
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    learning_rate_scale: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    schedule: Literal["constant", "one_cycle", "cosine"] = "constant"
    warmup: Share = 0.0
    ema_decay: Share = 0.0
    gradient_clip: Annotated[float, Field(ge=0)] = 0.0
    auxiliary_alpha: Annotated[float, Field(ge=0)] = 0.5
    auxiliary_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    patience: Annotated[int, Field(ge=0)] = 2
    monitor: Literal["auc", "gauc", "logloss"] = "auc"
    monitor_task: str | None = None
    task_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    task_weighting: Literal["fixed", "uncertainty", "gradnorm"] = "fixed"
    sequence_dropout: Share = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    group_by_length: bool = True
    validate_every: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Annotated[int, Field(ge=0)] = 0
    device: str = "cpu"
    threads: Annotated[int, Field(ge=1)] = 1
    mixed_precision: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_decay_for_all(cls, value: Any) -> Any:
        decay = value.get("weight_decay") if isinstance(value, Mapping) else None
        if isinstance(decay, (int, float)) and not isinstance(decay, bool):
            return {**value, "weight_decay": {"default": decay}}
        return value

    @model_validator(mode="after")
    def _weights_are_given_or_learned(self) -> Self:
        if self.task_weights and self.task_weighting != "fixed":
            raise ValueError(f"task_weights are fixed ones, and task_weighting = '{self.task_weighting}' learns them")
        return self


class SamplingSection(Section):
    """Negative down-sampling of the training rows.

    `negative_rate` is the share of the negatives that is kept: one number for the first task, or a table that names
    the task. `upstream = true` says that the file was already sampled at these rates, so no row is dropped here. In
    mode `training` the loss sees corrected logits, in mode `serving` the service corrects them.
    """

    negative_rate: Rate | dict[str, Rate] = 1.0
    mode: Literal["training", "serving", "none"] = "none"
    upstream: bool = False

    @model_validator(mode="after")
    def _sampling_is_corrected(self) -> Self:
        rates = self.negative_rate if isinstance(self.negative_rate, dict) else {"": self.negative_rate}
        if self.mode == "none" and any(rate < 1 for rate in rates.values()):
            raise ValueError("mode must be training or serving where negative_rate is below 1, or scores come too high")
        if not self.upstream and sum(rate < 1 for rate in rates.values()) > 1:
            raise ValueError("negative_rate may name one task: rows are dropped by the label of one task only")
        return self

    def rates(self, tasks: Sequence[str]) -> dict[str, float]:
        """Rate of every task; 1 where nothing is dropped."""
        named = self.negative_rate if isinstance(self.negative_rate, dict) else {tasks[0]: self.negative_rate}
        return {task: named.get(task, 1.0) for task in tasks}


class CalibrationSection(Section):
    """How validation logits become probabilities; `auto` takes the method with the best cross-validated logloss."""

    method: Literal["platt", "temperature", "isotonic", "none", "auto"] = "platt"
    without_history: bool = True
    folds: Annotated[int, Field(ge=2)] = 5


class FunnelSection(Section):
    """How the tasks `ctr` and `cvr` belong together.

    In `entire_space`, the default, conversions are learned from all exposures through the chance of a click and a
    conversion; in `clicked_only` from the clicked rows; `independent` labels are no funnel at all.
    """

    mode: Literal["entire_space", "clicked_only", "independent"] = "entire_space"


class EvaluationSection(Section):
    """What a report on treatment effects adds: `references` trains an S- and a T-learner on the same rows."""

    references: bool = False


class TrainingConfig(BaseModel):
    """The whole file. Build it with `load_config` or `from_mapping`; `resolved` is the way back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: FeatureSchema
    data: DataSection
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    objective: dict[str, Any] = Field(default_factory=dict)
    evaluation: EvaluationSection = EvaluationSection()
    sampling: SamplingSection = SamplingSection()
    calibration: CalibrationSection = CalibrationSection()
    invariance: InvarianceSection | None = None
    funnel: FunnelSection | None = None
    folder: Path = Field(default=Path(), exclude=True)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, source: str = "configuration", folder: Path = Path()) -> Self:
        """Check a parsed file.

        Args:
            mapping: sections by name, as TOML gives them.
            source: what messages call the file.
            folder: where relative paths of [data] start.

        Raises:
            ConfigError: one sentence with the key and the source.
        """
        sections = [name for name, field in cls.model_fields.items() if name not in ("features", "folder")]
        for key in mapping:
            if key not in SCHEMA_SECTIONS and key not in sections:
                raise ConfigError(f"{source}: unknown key {key}{suggestion(key, (*SCHEMA_SECTIONS, *sections))}")
        declared = {key: mapping[key] for key in SCHEMA_SECTIONS if key in mapping}
        try:
            features = FeatureSchema.from_toml(declared)
        except SchemaError as error:
            raise ConfigError(f"{source}: {error}") from error
        rest = {key: mapping[key] for key in sections if key in mapping}
        try:
            check_kind(features, rest)
            config = cls.model_validate({**rest, "features": features, "folder": folder})
        except ValueError as error:
            raise ConfigError(f"{source}: {first_problem(error, cls)}") from error
        funnel = config.funnel or (FunnelSection() if FUNNEL_TASKS.issubset(config.tasks) else None)
        config = config.model_copy(update={"data": with_kind_defaults(features, config.data), "funnel": funnel})
        config._check_tasks(source)
        config._check_funnel(source)
        return config

    def _check_tasks(self, source: str) -> None:
        named = {
            "sampling.negative_rate": self.sampling.negative_rate
            if isinstance(self.sampling.negative_rate, dict)
            else {},
            "train.task_weights": self.train.task_weights,
            "train.monitor_task": [self.train.monitor_task] if self.train.monitor_task is not None else [],
        }
        for key, tasks in named.items():
            for task in tasks:
                known = self.measured_tasks if key == "train.monitor_task" else self.tasks
                if task not in known:
                    hint = suggestion(task, known)
                    raise ConfigError(f"{source}: key {key} names {task!r}, which has no entry in [label]{hint}")

    def _check_funnel(self, source: str) -> None:
        if self.funnel is not None and not FUNNEL_TASKS.issubset(self.tasks):
            raise ConfigError(
                f"{source}: key funnel needs the tasks ctr and cvr in [label], got {', '.join(self.tasks)}"
            )
        if self.funnel_mode is None:
            return
        if BOTH in self.tasks:
            raise ConfigError(f"{source}: key label.{BOTH}: ctr and cvr together are computed and need no column")
        if self.sampling.rates(self.tasks)["cvr"] < 1:
            raise ConfigError(f"{source}: key sampling.negative_rate: in a funnel rows are dropped by clicks alone")
        if self.invariance is not None and self.funnel_mode == "entire_space":
            raise ConfigError(f"{source}: key invariance needs a loss for each task: set funnel.mode to clicked_only")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the order of [label]."""
        return self.features.tasks

    @property
    def funnel_mode(self) -> Literal["entire_space", "clicked_only"] | None:
        """How clicks and conversions belong together, or None where the labels are no funnel."""
        return None if self.funnel is None or self.funnel.mode == "independent" else self.funnel.mode

    @property
    def measured_tasks(self) -> tuple[str, ...]:
        """What is measured: the tasks, and in a funnel both of its steps together."""
        return self.tasks if self.funnel_mode is None else (*self.tasks, BOTH)

    def file(self, path: str) -> Path:
        """A path of the configuration, relative ones from the folder of its file."""
        return (self.folder / Path(path).expanduser()).resolve()

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults included, in the shape of the file; JSON-able, and `from_mapping` takes it back.

        Paths are absolute, because a run folder lies elsewhere than the configuration.
        """
        data = self.data.model_dump(mode="json", exclude_none=True)
        for key in ("path", "rows", "items", "users", "events"):
            if key in data:
                data[key] = str(self.file(data[key]))
        sections = self.model_dump(mode="json", exclude={"features", "data"}, exclude_none=True)
        return {**self.features.to_json(), "data": data, **sections_of(self.features.kind, sections)}


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a configuration file.

    Args:
        path: a TOML file.
        overrides: texts such as `train.epochs=3`, applied before anything is checked.

    Raises:
        ConfigError: one sentence with the file and the key (the line, where the TOML itself is broken).
    """
    file = Path(path)
    try:
        mapping = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: is not valid TOML: {error}") from error
    for override in overrides:
        apply_override(mapping, override, TrainingConfig, SCHEMA_SECTIONS)
    return TrainingConfig.from_mapping(mapping, source=str(file), folder=file.resolve().parent)


def config_from_json(text: str) -> TrainingConfig:
    """A configuration from the JSON of `resolved`, as a run folder keeps it.

    Raises:
        ConfigError: if the text is not JSON or not such a configuration.
    """
    try:
        mapping = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"configuration is not valid JSON: {error}") from error
    if not isinstance(mapping, dict):
        raise ConfigError("configuration must be a JSON object of sections")
    return TrainingConfig.from_mapping(mapping)
