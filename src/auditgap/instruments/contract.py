"""The contract every instrument keeps, and the registry that knows them all.

An instrument is a frozen configuration with one verb:

    @instrument(name="linear-probe", version="1", family="mechanistic", ...)
    class LinearProbe(Instrument):
        max_fpr: Number = 0.01

        def measure(self, model, data, *, seed, progress=quiet) -> Result: ...

Its result depends on model, data, configuration and seed alone; it leaves weights, hooks, train mode and random state as found
(`tests/instruments/test_contract.py` checks both over the whole registry).
"""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import JsonValue
from pydantic.fields import FieldInfo

from auditgap.data import Dataset, located
from auditgap.errors import UsageError, nearest
from auditgap.models import Model
from auditgap.progress import Progress, quiet
from auditgap.records import Card, Digest, Record, Result

__all__ = ["Instrument", "Location", "Progress", "configure", "find", "instrument", "quiet", "registered"]


EARLIER_ROLES = ("base", "checkpoint")
"""Roles of references that are the same model before a stage of training: reading one is access M6. A step: `checkpoint@400`."""


class Place:
    """Marks a type as the name of a model or a data set."""


Location = Annotated[str, Place()]
"""A setting that names a model or a data set: a path, `shipped:NAME`, `hub:...` or a Hub id."""


class Instrument(Record):
    """Abstract: a frozen configuration that can measure. Subclasses are final."""

    card: ClassVar[Card]

    def references(self) -> dict[str, Digest]:
        """Digests of what else the configuration names, by role: models (`base`, `control`) and data (`pairs`).

        They are registered, and checked again before the run.

        Raises:
            SubjectError: one of them cannot be opened.
        """
        return {}

    @classmethod
    def locations(cls) -> tuple[str, ...]:
        """The settings that name a model or a data set."""
        return tuple(name for name, field in cls.model_fields.items() if _names_place(field))

    def located(self, folder: Path) -> "Instrument":
        """The same with every setting that names a model or a data set found from `folder`.

        Raises:
            PlanError: one of them is not there, and is in the working directory.
        """
        places = {name: getattr(self, name) for name in self.locations()}
        found = {name: _from(value, folder) for name, value in places.items() if value is not None}
        return self.model_copy(update=found)

    @abstractmethod
    def measure(self, model: Model, data: Dataset, *, seed: int, progress: Progress = quiet) -> Result:
        """Run the procedure once.

        Raises:
            CannotMeasure: a precondition does not hold on this subject and data.
            UsageError: the configuration does not fit the model (layer out of range, token unknown).
        """


Final = TypeVar("Final", bound=type[Instrument])
_registry: dict[str, type[Instrument]] = {}


def instrument(**card: Any) -> Callable[[Final], Final]:
    """Register a class under the identity on its card (the fields of `records.Card`)."""

    def register(cls: Final) -> Final:
        cls.card = Card(**card)
        if cls.card.name in _registry:
            raise UsageError(f"instrument '{cls.card.name}' is registered twice: {_registry[cls.card.name]} and {cls}")
        _registry[cls.card.name] = cls
        return cls

    return register


def registered() -> dict[str, type[Instrument]]:
    """Every instrument by name, sorted."""
    return dict(sorted(_registry.items()))


def find(name: str) -> type[Instrument]:
    """The instrument class of that name.

    Raises:
        UsageError: there is none; the message gives the nearest name.
    """
    if name not in _registry:
        raise UsageError(f"no instrument named '{name}'{nearest(name, _registry)}")
    return _registry[name]


def configure(name: str, config: dict[str, JsonValue]) -> Instrument:
    """The instrument of that name with its fields set.

    Raises:
        UsageError: an unknown instrument or key (with the nearest name), or a value of the wrong type.
    """
    cls = find(name)
    for key in config:
        if key not in cls.model_fields:
            raise UsageError(f"instrument '{name}' has no setting '{key}'{nearest(key, cls.model_fields)}")
    return cls.parse(config, where=f"instrument '{name}'")


def _names_place(field: FieldInfo) -> bool:
    """Whether a setting is a `Location`, may be one, or holds several."""
    inner = (meta for part in get_args(field.annotation) for meta in getattr(part, "__metadata__", ()))
    return any(isinstance(meta, Place) for meta in (*field.metadata, *inner))


def _from(value: str | tuple[str, ...], folder: Path) -> str | tuple[str, ...]:
    return located(value, folder) if isinstance(value, str) else tuple(located(name, folder) for name in value)
