"""The message `tf.train.Example`, without importing TensorFlow.

The schema is defined here because importing TensorFlow's class imports all of
TensorFlow, which takes seconds and hundreds of megabytes.
"""

import functools
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
)

_PACKAGE = "nsl.tools"


@functools.cache
def example_class() -> Any:
    """Returns a message class that is wire-compatible with `tf.train.Example`."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="nsl/tools/example.proto", package=_PACKAGE, syntax="proto3"
    )
    lists = {
        "BytesList": field.TYPE_BYTES,
        "FloatList": field.TYPE_FLOAT,
        "Int64List": field.TYPE_INT64,
    }
    for name, value_type in lists.items():
        file.message_type.add(name=name).field.add(
            name="value", number=1, type=value_type, label=field.LABEL_REPEATED
        )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(lists, start=1):
        feature.field.add(
            name=name.removesuffix("List").lower() + "_list",
            number=number,
            type=field.TYPE_MESSAGE,
            type_name=f".{_PACKAGE}.{name}",
            label=field.LABEL_OPTIONAL,
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(
        name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL
    )
    entry.field.add(
        name="value",
        number=2,
        type=field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.Feature",
        label=field.LABEL_OPTIONAL,
    )
    features.field.add(
        name="feature",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.Features.FeatureEntry",
        label=field.LABEL_REPEATED,
    )
    file.message_type.add(name="Example").field.add(
        name="features",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.Features",
        label=field.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"{_PACKAGE}.Example")
    )


def parse_features(data: bytes) -> Any:
    """Parses a serialized Example.

    Args:
      data: The serialized message.

    Returns:
      The map from feature names to features.

    Raises:
      ValueError: If `data` is not an Example.
    """
    try:
        return example_class().FromString(data).features.feature
    except message.DecodeError:
        raise ValueError("it is not a serialized tf.train.Example") from None


def check_present(features: Any, name: str) -> None:
    """Raises ValueError if there is no feature named `name`."""
    if name not in features:
        found = ", ".join(repr(key) for key in sorted(features)) or "none"
        raise ValueError(f"it has no feature {name!r}; its features are {found}")


def example_id(features: Any, name: str) -> bytes:
    """Returns the id of an Example.

    Args:
      features: A map from feature names to features.
      name: The name of the feature that holds the id.

    Returns:
      The id, nonempty UTF-8; an integer id in decimal digits.

    Raises:
      ValueError: If the feature is missing, or does not hold exactly one nonempty
        UTF-8 string or integer.
    """
    check_present(features, name)
    feature = features[name]
    values = feature.bytes_list.value
    if len(values) != 1:
        kind = feature.WhichOneof("kind")
        if kind == "int64_list" and len(feature.int64_list.value) == 1:
            return b"%d" % feature.int64_list.value[0]
        if kind == "float_list":
            raise ValueError(
                f"its feature {name!r} must be bytes or an integer, but is of kind "
                f"{kind}"
            )
        values = getattr(feature, kind).value if kind else values
        raise ValueError(
            f"its feature {name!r} must hold one value, but holds {len(values)}"
        )
    value: bytes = values[0]
    if not value:
        raise ValueError(f"its feature {name!r} is the empty string")
    if not value.isascii():
        check_utf8(value, name)
    return value


def check_utf8(value: bytes, name: str) -> None:
    """Raises ValueError if the value of the feature `name` is not UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError:
        raise ValueError(
            f"its feature {name!r} must be UTF-8, but is {value!r}"
        ) from None
