"""The configs of a wrapper as attributes that can be set."""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar, overload

Config = TypeVar("Config")


class ConfigAttribute(Generic[Config]):
    """An attribute of a model that holds a config of one class.

    One that is set, or changed in place, holds from then on, in compiled steps, too.

    Args:
      kind: The class, one of `nsl.configs`.
      maker: The name of the function in `nsl.configs` that makes one from flat fields.
    """

    def __init__(self, kind: type[Config], maker: str) -> None:
        self.kind = kind
        self._maker = maker

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, model: None, owner: type) -> Self: ...

    @overload
    def __get__(self, model: Any, owner: type) -> Config: ...

    def __get__(self, model: Any, owner: type) -> Any:
        return self if model is None else getattr(model, f"_{self._name}")

    def __set__(self, model: Any, config: Config) -> None:
        if not isinstance(config, self.kind):
            raise TypeError(
                f"{self._name} must be a nsl.configs.{self.kind.__name__} (see "
                f"nsl.configs.{self._maker}), but received {config!r}."
            )
        setattr(model, f"_{self._name}", config)


def config_attributes(model_class: type) -> dict[str, ConfigAttribute[Any]]:
    """Lists the attributes of a class that are configs.

    Args:
      model_class: The class of a wrapper.

    Returns:
      By name, those of the class and of its bases.
    """
    return {
        name: attribute
        for base in reversed(model_class.__mro__)
        for name, attribute in vars(base).items()
        if isinstance(attribute, ConfigAttribute)
    }
