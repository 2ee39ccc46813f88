"""A file of finished parts, from which an interrupted evaluation can resume."""

import enum
import hashlib
import json
import os
import re
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.attacks.fingerprint import fingerprint
from nsl.files.output_files import atomic_files
from nsl.robustness.gallery import from_json, to_json

_OUTPUT_TOLERANCE = 1e-4
_LONG = 200
_DIGEST = "[0-9a-f]{64}"


def settings_of(value: Any) -> str:
    """Returns a text that identifies a value across processes.

    It is the repr of short, plain values, and otherwise a hexadecimal SHA-256 digest.

    Raises:
      ValueError: If the value cannot be identified.
    """
    if isinstance(value, enum.Enum):
        return str(value.value)
    text = repr(value)
    plain = isinstance(value, bool | int | float | str | list | None)
    if plain and len(text) < _LONG:
        return text
    return hashlib.sha256(repr(fingerprint(value, _stable)).encode()).hexdigest()


def _stable(value: Any) -> Any:
    """Fingerprints a value that `fingerprint` cannot handle."""
    if tf.is_tensor(value) or isinstance(value, tf.Variable):
        return fingerprint(np.asarray(value))
    weights = getattr(value, "weights", None)
    if isinstance(weights, list):
        return (
            type(value).__qualname__,
            *(fingerprint(np.asarray(w)) for w in weights),
        )
    raise ValueError(
        "resume cannot identify this value across processes: "
        f"{type(value).__qualname__} {value!r}. Use a plain function or an attrs "
        "class, or omit resume."
    )


class Checkpoint:
    """The results of each attack so far, by attack and epsilon.

    Args:
      path: The file. If None, nothing is saved.
      fingerprint: Everything that the results depend on, JSON values by name.
      outputs: The model's outputs for a few examples, compared with tolerance 1e-4.

    Raises:
      ValueError: If the file belongs to another evaluation; the message lists the
        differences.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        fingerprint: dict[str, Any],
        outputs: np.ndarray,
    ) -> None:
        self._path = None if path is None else os.fspath(path)
        self._data: dict[str, Any] = {
            "fingerprint": json.loads(json.dumps(fingerprint)),
            "outputs": np.asarray(outputs, np.float64).tolist(),
            "finished": {},
        }
        if self._path is not None and os.path.exists(self._path):
            self._data["finished"] = self._read(self._path)

    def finished(self, attack: str, epsilon: float) -> dict[str, Any] | None:
        """Returns the results that `add` saved for an attack and epsilon, or None."""
        return self._data["finished"].get(attack, {}).get(repr(epsilon))

    def add(self, attack: str, results: dict[float, dict[str, Any]]) -> None:
        """Saves results of an attack: JSON values by name, for each epsilon."""
        finished = self._data["finished"].setdefault(attack, {})
        finished.update({repr(epsilon): r for epsilon, r in results.items()})
        if self._path is not None:
            with atomic_files([self._path]) as (file,):
                file.write(json.dumps(self._data, default=to_json).encode())

    def _read(self, path: str) -> dict[str, Any]:
        with open(path, encoding="utf-8") as file:
            try:
                found = json.load(file, object_hook=from_json)
                outputs = np.array(found["outputs"], np.float64)
                then, finished = dict(found["fingerprint"]), dict(found["finished"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"resume='{path}' was not written by evaluate_robustness. Use "
                    "another file, or remove this one."
                ) from error
        now = self._data["fingerprint"]
        different = [key for key in now if then.get(key) != now[key]]
        expected = np.array(self._data["outputs"])
        if outputs.shape != expected.shape or not np.allclose(
            outputs, expected, _OUTPUT_TOLERANCE, _OUTPUT_TOLERANCE, equal_nan=True
        ):
            different.append("model (its outputs for the first examples)")
        if different:
            # Data and digests are not worth showing.
            hidden = {"x", "y"} | {key for key in different if key not in then}
            hidden |= {k for k, v in then.items() if re.fullmatch(_DIGEST, str(v))}
            described = ", ".join(
                key
                if key in hidden
                else f"{key} (then {then[key]!r}, now {now[key]!r})"
                for key in different
            )
            raise ValueError(
                f"resume='{path}' belongs to another evaluation. Differences: "
                f"{described}. Use another file, or remove this one to start over."
            )
        return finished
