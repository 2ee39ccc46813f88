"""The config of a wrapper as an attribute that can be set."""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar, overload

Config = TypeVar("Config")


class ConfigAttribute(Generic[Config]):
    """An attribute of a model that holds a config of one class.

    The next call of `fit` or `evaluate` uses a new config, and also changes made to the
    fields of a config.

    Args:
      kind: The class of the config.
      maker: The name of the function in `nsl.configs` that makes a config from flat
        arguments, for errors.
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
    """Lists the config attributes of a wrapper's class and its bases.

    Args:
      model_class: The class.

    Returns:
      The attributes by name.
    """
    return {
        name: attribute
        for base in reversed(model_class.__mro__)
        for name, attribute in vars(base).items()
        if isinstance(attribute, ConfigAttribute)
    }
