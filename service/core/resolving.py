"""From the ``model`` of a request to a version that serves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from bundle.versions import precedence
from service.errors import InvalidFeatures, NotReady, Problem, UnknownModel, UnknownVersion
from service.settings import RouteSettings

if TYPE_CHECKING:
    from service.core.registry import Slot


@dataclass(frozen=True, slots=True)
class ModelName:
    """What serves under one name: slots by version, aliases, and all versions in the store (newest first).

    `newest` answers a plain name: the newest release, a pre-release only where there is no release.
    """

    slots: Mapping[str, "Slot"]
    aliases: Mapping[str, str]
    on_disk: tuple[str, ...] = ()
    newest: str = field(init=False, default="")

    def __post_init__(self) -> None:
        # frozen, hence the long way round; requests ask for it far more often than scans make it
        released = [version for version in self.slots if precedence(version)[3]]
        object.__setattr__(self, "newest", max(released or self.slots, key=precedence))

    @property
    def kind(self) -> str:
        """Ctr or uplift."""
        return str(self.slots[self.newest].served.manifest.kind)


Slots = Mapping[str, ModelName]


class Resolver:
    """Reads one immutable view that the registry replaces as a whole.

    Args:
        routes: Default models.
    """

    def __init__(self, routes: RouteSettings) -> None:
        self._routes = routes
        self.names: Slots = MappingProxyType({})

    def resolve(self, spec: str | None, kind: Literal["ctr", "uplift"]) -> "Slot":
        """The slot for ``name``, ``name@version``, ``name@alias`` or, for None, the default route.

        Raises:
            UnknownModel: There is no such name of that kind.
            UnknownVersion: The name has no such version or alias.
            InvalidFeatures: No name was given and there is more than one to choose from.
            NotReady: The service's own default cannot serve yet.
        """
        if spec is not None:
            return self._named(spec, kind)
        route = self._routes.score if kind == "ctr" else self._routes.uplift
        if route is not None:
            try:
                return self._named(route, kind)
            except UnknownModel as error:
                raise NotReady("The model of the default route is not loaded.") from error
        return self._only(kind)

    def _named(self, spec: str, kind: str) -> "Slot":
        name, _, wanted = spec.partition("@")
        model = self.names.get(name)
        if model is None or model.kind != kind:
            served = sorted(known for known, model in self.names.items() if model.kind == kind)
            sentence = f"No model of kind {kind} is served under that name; served are: {', '.join(served) or 'none'}."
            raise _unknown(UnknownModel, sentence)
        version = model.aliases.get(wanted, wanted) if wanted else model.newest
        slot = model.slots.get(version)
        if slot is None:
            if version in model.on_disk:
                raise _unknown(
                    UnknownVersion,
                    "That version is in the model store and not loaded: it was refused, or it is older than the newest "
                    "models.keep versions and neither an alias nor models.preload names it.",
                )
            raise _unknown(UnknownVersion, "The model has no such version or alias.")
        if slot.served.manifest.kind != kind:
            raise _unknown(UnknownVersion, f"That version of the model is not of kind {kind}.")
        return slot

    def _only(self, kind: str) -> "Slot":
        names = sorted(name for name, model in self.names.items() if model.kind == kind)
        if len(names) == 1:
            model = self.names[names[0]]
            return model.slots[model.newest]
        if names:
            sentence = f"More than one model can answer; say which: {', '.join(names)}."
            raise InvalidFeatures(sentence, [Problem("/model", "schema", sentence)])
        if kind == "uplift":
            raise UnknownModel("No model of kind uplift is loaded.")
        raise NotReady("No model of kind ctr is loaded yet.")


def _unknown(kind: type[UnknownModel], sentence: str) -> UnknownModel:
    """The error with the place of the request that named the model."""
    return kind(sentence, [Problem("/model", kind.code, sentence)])
