"""Activations by name: ``get``, ``serialize`` and ``deserialize``."""

import ast
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.activations import Dice, PReLU

Activation = str | Mapping[str, Any] | Callable[..., Any] | None


def _sigmoid2(x: Tensor) -> Tensor:
    return 2.0 * torch.sigmoid(x)


def _softplus(x: Tensor) -> Tensor:
    return torch.clamp(x, min=0.0) + torch.log1p(torch.exp(-torch.abs(x)))


def _hard_sigmoid(x: Tensor) -> Tensor:
    # The Keras slope; torch's hardsigmoid has 1/6.
    return torch.clamp(0.2 * x + 0.5, 0.0, 1.0)


def _softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)


def _linear(x: Tensor) -> Tensor:
    return x


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x)


def _selu(x: Tensor) -> Tensor:
    return F.selu(x)


def _softsign(x: Tensor) -> Tensor:
    return x / (1.0 + torch.abs(x))


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


FUNCTIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sigmoid2": _sigmoid2,
    "linear": _linear,
    "exponential": torch.exp,
    "softplus": _softplus,
    "softsign": _softsign,
    "selu": _selu,
    "gelu": _gelu,
    "hard_sigmoid": _hard_sigmoid,
    "swish": _swish,
    "softmax": _softmax,
}


class Elementwise(nn.Module):
    """A named activation without parameters."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.function = FUNCTIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        """Activated x, same shape."""
        activated: Tensor = self.function(x)
        return activated

    def parameters_of_name(self) -> dict[str, float]:
        """What rebuilds this activation, apart from its name."""
        return {}


class ReLU(nn.Module):
    """Rectifier with the Keras options: a ceiling, a slope below the threshold, and the threshold itself."""

    def __init__(self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0) -> None:
        super().__init__()
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Activated x, same shape."""
        if self.threshold == 0.0 and self.negative_slope == 0.0:
            kept = torch.relu(x)
        else:
            kept = torch.where(x >= self.threshold, x, self.negative_slope * (x - self.threshold))
        if self.max_value is not None:
            kept = torch.clamp(kept, max=self.max_value)
        return kept

    def is_plain(self) -> bool:
        """Whether this is max(x, 0), without any option."""
        return self.max_value is None and self.negative_slope == 0.0 and self.threshold == 0.0

    def parameters_of_name(self) -> dict[str, float | None]:
        """What rebuilds this activation, apart from its name."""
        return {"max_value": self.max_value, "negative_slope": self.negative_slope, "threshold": self.threshold}


class LeakyReLU(nn.Module):
    """Rectifier with a fixed negative slope (0.3 as in Keras; torch has 0.01)."""

    def __init__(self, alpha: float = 0.3) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Activated x, same shape."""
        return F.leaky_relu(x, self.alpha)

    def parameters_of_name(self) -> dict[str, float]:
        """What rebuilds this activation, apart from its name."""
        return {"alpha": self.alpha}


class ELU(nn.Module):
    """x above zero, alpha (e^x - 1) below."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Activated x, same shape."""
        return F.elu(x, self.alpha)

    def parameters_of_name(self) -> dict[str, float]:
        """What rebuilds this activation, apart from its name."""
        return {"alpha": self.alpha}


class ThresholdedReLU(nn.Module):
    """x above theta, zero elsewhere."""

    def __init__(self, theta: float = 1.0) -> None:
        super().__init__()
        self.theta = theta

    def forward(self, x: Tensor) -> Tensor:
        """Activated x, same shape."""
        return torch.where(x > self.theta, x, torch.zeros((), dtype=x.dtype, device=x.device))

    def parameters_of_name(self) -> dict[str, float]:
        """What rebuilds this activation, apart from its name."""
        return {"theta": self.theta}


CLASSES: Final[Mapping[str, type[nn.Module]]] = {
    "relu": ReLU,
    "leakyrelu": LeakyReLU,
    "elu": ELU,
    "thresholdedrelu": ThresholdedReLU,
    "prelu": PReLU,
    "dice": Dice,
}
PARAMETRIC: Final = (PReLU, Dice)
ALIASES: Final[Mapping[str, str]] = {"hardsigmoid": "hard_sigmoid"}


def get(identifier: Activation, num_features: int | None = None) -> Callable[..., Any] | None:
    """The activation an identifier stands for.

    Args:
        identifier: None, a name in any case, a mapping {"name": ..., options}, that mapping as JSON text (or as a
            Python literal), a class, or anything callable.
        num_features: width of the last axis, for activations with parameters, unless the mapping says it.

    Returns:
        None for None; a fresh module for a name, a mapping or a class; another callable as it is.

    Raises:
        ValueError: if the name or an option is unknown, or the width of prelu or dice is missing.

    Example:
        >>> import torch
        >>> from models.layers import get_activation
        >>> get_activation({"name": "LeakyReLU", "alpha": 0.5})(torch.tensor([-2.0, 1.0]))
        tensor([-1.,  1.])
    """
    if identifier is None:
        return None
    if isinstance(identifier, str):
        text = identifier.strip()
        if text.startswith("{"):
            return _build(_mapping(text), num_features)
        return _build({"name": text}, num_features)
    if isinstance(identifier, Mapping):
        return _build(identifier, num_features)
    if inspect.isclass(identifier):
        if issubclass(identifier, PARAMETRIC):
            return _build({"name": identifier.__name__}, num_features)
        return _instance(identifier)
    if callable(identifier):
        return identifier
    raise ValueError(f"activation must be None, a name, a mapping or a callable, got {identifier!r}")


def serialize(activation: Callable[..., Any] | None) -> str | None:
    """JSON text that ``deserialize`` turns into an equal activation (same options, fresh parameters).

    Raises:
        ValueError: if the activation is not one of the named ones.

    Example:
        >>> from models.layers import advanced_activations
        >>> advanced_activations.serialize(advanced_activations.get("elu"))
        '{"name": "elu", "alpha": 1.0}'
    """
    if activation is None:
        return None
    for name, function in FUNCTIONS.items():
        if activation is function or (isinstance(activation, Elementwise) and activation.name == name):
            return json.dumps({"name": name})
    for name, kind in CLASSES.items():
        if type(activation) is kind:
            return json.dumps({"name": name, **_options(activation)})
    raise ValueError(f"activation must be one of {', '.join(_names())} to be serialized, got {activation!r}")


def deserialize(text: str | None) -> Callable[..., Any] | None:
    """Inverse of ``serialize``; also takes everything that ``get`` takes.

    Example:
        >>> from models.layers import advanced_activations
        >>> advanced_activations.deserialize('{"name": "elu", "alpha": 2.0}').alpha
        2.0
    """
    return get(text)


def identity() -> Elementwise:
    """The activation that does nothing, where a module is needed in every place."""
    return Elementwise("linear")


def _instance(kind: Any) -> Callable[..., Any]:
    made: Callable[..., Any] = kind()
    return made


def _options(activation: Any) -> dict[str, Any]:
    options: dict[str, Any] = activation.parameters_of_name()
    return options


def _names() -> list[str]:
    return sorted([*FUNCTIONS, *CLASSES])


def _mapping(text: str) -> Mapping[str, Any]:
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError:
        try:
            parsed = ast.literal_eval(text)
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"activation must be JSON or a Python literal, got {text!r}") from error
    if not isinstance(parsed, Mapping):
        raise ValueError(f"activation must be a mapping with a name, got {text!r}")
    return parsed


def _build(options: Mapping[str, Any], num_features: int | None) -> nn.Module:
    arguments = dict(options)
    given = str(arguments.pop("name", ""))
    name = ALIASES.get(given.lower(), given.lower())
    if name in FUNCTIONS:
        if arguments:
            raise ValueError(f"activation {given!r} takes no options, got {sorted(arguments)}")
        return Elementwise(name)
    if name not in CLASSES:
        raise ValueError(f"activation must be one of {', '.join(_names())}; got {given!r}")
    kind = CLASSES[name]
    if issubclass(kind, PARAMETRIC):
        arguments.setdefault("num_features", num_features)
        if arguments["num_features"] is None:
            raise ValueError(f"activation {given!r} needs num_features, the width of its input")
    unknown = set(arguments) - set(inspect.signature(kind).parameters)
    if unknown:
        raise ValueError(f"activation {given!r} does not take {sorted(unknown)}")
    return kind(**arguments)
