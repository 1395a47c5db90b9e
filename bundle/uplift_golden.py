"""Golden requests of treatment effects: raw users and doses with every output that training's network gave.

They are replayed before a bundle takes traffic. Behaviours are inline: a store would answer differently later.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bundle.arrays import read_npz, write_npz
from bundle.population import UpliftQuery

UPLIFT_GOLDEN_FILE: Final = "uplift_golden.npz"
LEAST_ROWS: Final = 12


@dataclass(frozen=True, slots=True)
class UpliftGoldenRow:
    """One request that needs no store, and what the graph must give.

    Attributes:
        query: the users.
        doses: by treatment, in its own unit; for every treatment that has one.
        points: of the dose grid; 0 where no treatment has a dose.
        outputs: by name, float64 as the network returned them: (U, K), curves (U, K, G).
    """

    query: UpliftQuery
    outputs: Mapping[str, NDArray[np.float64]]
    doses: Mapping[str, float] = field(default_factory=dict)
    points: int = 0


def write_uplift_golden(path: Path, rows: Sequence[UpliftGoldenRow], outputs: Sequence[str]) -> None:
    """Write golden rows; requests of different size lie one after another in one flat array an output.

    Raises:
        ValueError: if there are too few rows, a query leaves its behaviours to the store, or outputs do not fit.
    """
    if len(rows) < LEAST_ROWS:
        raise ValueError(f"at least {LEAST_ROWS} golden requests are needed, got {len(rows)}")
    for number, row in enumerate(rows):
        if any(user.behaviours is None for user in row.query.users):
            raise ValueError("a golden query must carry its behaviours; a store would answer differently later")
        _check_shapes(row, outputs, f"golden row {number}")
    requests = [_request(row).encode() for row in rows]
    arrays: dict[str, NDArray[Any]] = {"requests": np.array(requests, dtype=f"S{max(map(len, requests))}")}
    for name in outputs:
        values = [row.outputs[name] for row in rows]
        arrays[f"shape.{name}"] = np.array([value.shape for value in values], dtype=np.int64)
        arrays[f"value.{name}"] = np.concatenate([value.reshape(-1) for value in values]).astype(np.float64)
    write_npz(path, arrays)


def read_uplift_golden(path: Path, outputs: Sequence[str]) -> list[UpliftGoldenRow]:
    """Read what `write_uplift_golden` wrote.

    Raises:
        ValueError: if the file is damaged, holds too few requests, or is for other outputs.
        OSError: if it cannot be read.
    """
    arrays = read_npz(path)
    wanted = {"requests", *(f"{kind}.{name}" for kind in ("shape", "value") for name in outputs)}
    if set(arrays) != wanted:
        raise ValueError(f"{path.name}: expected the arrays {sorted(wanted)}, found {sorted(arrays)}")
    requests = arrays["requests"]
    if requests.dtype.kind != "S" or requests.ndim != 1 or len(requests) < LEAST_ROWS:
        raise ValueError(f"{path.name}: does not hold at least {LEAST_ROWS} requests")
    columns = {name: _split(path, arrays, name, len(requests)) for name in outputs}
    rows = []
    for number, request in enumerate(requests.tolist()):
        row = _row(request.decode("utf-8"), {name: column[number] for name, column in columns.items()})
        _check_shapes(row, outputs, f"{path.name}: row {number}")
        rows.append(row)
    return rows


def _request(row: UpliftGoldenRow) -> str:
    asked = {"query": json.loads(row.query.to_json()), "doses": dict(row.doses), "points": row.points}
    return json.dumps(asked, ensure_ascii=False, allow_nan=False, sort_keys=True)


def _row(text: str, outputs: dict[str, NDArray[np.float64]]) -> UpliftGoldenRow:
    data = json.loads(text)
    try:
        doses = {str(name): float(dose) for name, dose in data["doses"].items()}
        return UpliftGoldenRow(UpliftQuery.from_json(json.dumps(data["query"])), outputs, doses, int(data["points"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a golden request: {error}") from error


def _split(path: Path, arrays: Mapping[str, NDArray[Any]], name: str, count: int) -> list[NDArray[np.float64]]:
    """The values of one output, cut into those of each request."""
    shapes, flat = arrays[f"shape.{name}"], arrays[f"value.{name}"]
    if shapes.dtype != np.int64 or shapes.ndim != 2 or len(shapes) != count or (shapes < 0).any():
        raise ValueError(f"{path.name}: the shapes of {name} do not fit {count} requests")
    # Before anything is cut: a shape may claim more than there is, also by overflowing.
    sizes = [int(np.prod(shape, dtype=object)) for shape in shapes]
    if flat.dtype != np.float64 or flat.ndim != 1 or sum(sizes) != len(flat):
        raise ValueError(f"{path.name}: the values of {name} do not fit their shapes")
    ends = np.cumsum(sizes)
    return [flat[end - size : end].reshape(shape) for shape, size, end in zip(shapes, sizes, ends, strict=True)]


def _check_shapes(row: UpliftGoldenRow, outputs: Sequence[str], where: str) -> None:
    if set(row.outputs) != set(outputs):
        raise ValueError(f"{where} has the outputs {sorted(row.outputs)}, expected {sorted(outputs)}")
    for name in outputs:
        value = row.outputs[name]
        if value.ndim not in (2, 3) or value.shape[0] != len(row.query.users):
            raise ValueError(f"{where}: {name} {value.shape} does not fit {len(row.query.users)} users")
        if value.ndim == 3 and value.shape[2] != row.points:
            raise ValueError(f"{where}: {name} {value.shape} does not fit {row.points} points of the dose grid")
        if not np.isfinite(value).all():
            raise ValueError(f"{where}: {name} is not finite")
