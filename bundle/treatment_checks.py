"""Checks of a declaration that depend on whether it has treatments. Each raises a `SchemaError` that names the key."""

from collections import Counter
from collections.abc import Iterable

from bundle.errors import SchemaError
from bundle.schema import FeatureSchema, HistoryFeature, IdFeature, NumberFeature, SequenceFeature, Treatment


def check_kind(schema: FeatureSchema) -> None:
    """Check what rows of treatments may not have, or what rows of candidates need.

    Raises:
        SchemaError: for the first broken rule.
    """
    if schema.treatment is None:
        for column, key in ((schema.ids.item, "item"), (schema.ids.time, "time")):
            if column is None:
                raise SchemaError(f"missing key ids.{key}")
        return
    _check_arms(schema.treatment)
    _check_dose(schema.treatment)
    _check_columns(schema, schema.treatment)
    if len(schema.label) != 1:
        raise SchemaError(f"key label: treatments have exactly one outcome, got {len(schema.label)}")
    if schema.group:
        raise SchemaError(f"key group[{schema.group[0].name}]: treatments have no candidates to attend to")
    for feature in schema.feature:
        _check_feature(schema, feature)


def _check_arms(treatment: Treatment) -> None:
    if twice := _repeated(treatment.arms):
        raise SchemaError(f"key treatment.arms: {twice!r} is listed twice")
    for arm in treatment.values:
        if arm not in treatment.arms:
            raise SchemaError(f"key treatment.values.{arm}: there is no arm of that name")
    for arm, texts in treatment.values.items():
        if not texts or "" in texts:
            raise SchemaError(f"key treatment.values.{arm}: needs at least one text, none of them empty")
    if twice := _repeated(text for arm in treatment.arms for text in treatment.values.get(arm, (arm,))):
        raise SchemaError(f"key treatment.values: {twice!r} would mean two arms")


def _check_dose(treatment: Treatment) -> None:
    if treatment.dose is None:
        for key in ("dose_arms", "dose_unit", "dose_range", "reference_dose"):
            if getattr(treatment, key) is not None:
                raise SchemaError(f"key treatment.{key}: needs the key treatment.dose")
        return
    for arm in treatment.dose_arms or ():
        if arm not in treatment.arms:
            raise SchemaError(f"key treatment.dose_arms: there is no arm named {arm!r}")
        if arm == treatment.control:
            raise SchemaError(f"key treatment.dose_arms: {arm!r} is the control and has no dose")
    if twice := _repeated(treatment.dose_arms or ()):
        raise SchemaError(f"key treatment.dose_arms: {twice!r} is listed twice")
    if treatment.dose_range is None:
        return
    low, high = treatment.dose_range
    if low >= high:
        raise SchemaError(f"key treatment.dose_range: the lowest dose {low:g} must be below the highest {high:g}")
    if treatment.reference_dose is not None and not low <= treatment.reference_dose <= high:
        raise SchemaError(f"key treatment.reference_dose: must lie in dose_range, {low:g} to {high:g}")


def _check_columns(schema: FeatureSchema, treatment: Treatment) -> None:
    roles = {"ids.user": schema.ids.user, "ids.item": schema.ids.item, "ids.time": schema.ids.time}
    roles |= {f"label.{task}": column for task, column in schema.label.items()}
    roles |= {f"weight.{task}": column for task, column in schema.weight.items()}
    roles |= {f"feature[{feature.name}]": feature.name for feature in schema.feature}
    for key, column in (("column", treatment.column), ("dose", treatment.dose)):
        for role, other in roles.items():
            if column is not None and column == other:
                # As a feature it would tell the network what was done and hide it from the treatment's own place.
                raise SchemaError(f"key treatment.{key}: {column!r} is already {role}")
    if treatment.dose == treatment.column:
        raise SchemaError(f"key treatment.dose: {treatment.dose!r} is the column of the arms")


def _check_feature(
    schema: FeatureSchema, feature: IdFeature | NumberFeature | SequenceFeature | HistoryFeature
) -> None:
    key = f"feature[{feature.name}]"
    if isinstance(feature, (IdFeature, NumberFeature)):
        if feature.side == "candidate":
            raise SchemaError(f"key {key}.side: treatments have no candidates; use 'user' or 'context'")
        return
    if isinstance(feature, HistoryFeature) and feature.match is not None:
        raise SchemaError(f"key {key}.match: treatments have no candidates to agree with")
    for column, name in ((schema.ids.item, "item"), (schema.ids.time, "time")):
        if column is None:
            raise SchemaError(f"missing key ids.{name}: feature[{feature.name}] reads behaviours")


def _repeated(names: Iterable[str]) -> str | None:
    """The first name that comes twice, or None."""
    return next((name for name, count in Counter(names).items() if count > 1), None)
