"""The attacks of an evaluation: suites, names, and attacks given as objects."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nsl.attacks import FAB, FGSM, MIFGSM, PGD, Attack, AutoPGD, Square
from nsl.configs import NormType

_DLR_CLASSES = 4

# The settings of AutoAttack: Croce and Hein (2020), section 5.
_FACTORIES: dict[str, Callable[[NormType], Attack]] = {
    "fgsm": lambda norm: FGSM(norm=norm),
    "mifgsm": lambda norm: MIFGSM(norm=norm),
    "pgd": lambda norm: PGD(norm=norm, steps=40, early_stop=True),
    "pgd-10": lambda norm: PGD(norm=norm, steps=10, early_stop=True),
    "apgd-ce": lambda norm: AutoPGD(norm=norm, steps=100, early_stop=True),
    "apgd-t": lambda norm: AutoPGD(
        norm=norm, steps=100, objective="dlr", target_classes=9, early_stop=True
    ),
    "apgd-margin": lambda norm: AutoPGD(
        norm=norm, steps=100, objective="margin", early_stop=True
    ),
    "fab-t": lambda norm: FAB(norm=norm, steps=100, classes=9),
    "square": lambda norm: Square(norm=norm, steps=5000),
}
_SUITES = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "quick": ("pgd-10",),
}


def choose_attacks(
    attacks: str | Sequence[Any] | Mapping[str, Any], norm: NormType, classes: int
) -> tuple[dict[str, Any], list[str]]:
    """Returns the attacks to run, by name.

    Args:
      attacks: A suite, a list of names and attacks, or a dict from name to attack.
      norm: The norm of the evaluation.
      classes: The number of classes. With fewer than 4 the targeted difference of
        logits ratio is replaced by the margin.

    Returns:
      The attacks in the order they run, and the names of those that were replaced.

    Raises:
      ValueError: If there is no attack, none of a name, two of one name, or one of
        another norm.
    """
    given: list[Any]
    if isinstance(attacks, str):
        given = list(_SUITES.get(attacks, (attacks,)))
    elif isinstance(attacks, Mapping):
        given = list(attacks.items())
    else:
        given = list(attacks)
    chosen: dict[str, Any] = {}
    replaced = []
    for one in given:
        if isinstance(one, str) and one == "apgd-t" and classes < _DLR_CLASSES:
            replaced.append(one)
            one = "apgd-margin"
        name, attack = _named(one, norm)
        if name in chosen:
            raise ValueError(
                f"Two attacks are named {name!r}: give a dict from name to attack."
            )
        _check_norm(name, attack, norm)
        chosen[name] = attack
    if not chosen:
        raise ValueError(
            f"attacks must name at least one attack, but received {attacks!r}."
        )
    return chosen, replaced


def gradient_attack(norm: NormType) -> Attack:
    """Returns the attack that should succeed on any model if epsilon is huge.

    Args:
      norm: Its norm.

    Returns:
      An attack that follows gradients.
    """
    return _attack("pgd", norm)


@functools.cache
def _attack(name: str, norm: NormType) -> Attack:
    """Returns the attack of a name, always the same: it keeps what it compiles."""
    return _FACTORIES[name](norm)


def _named(one: Any, norm: NormType) -> tuple[str, Any]:
    if isinstance(one, str):
        if one not in _FACTORIES:
            raise ValueError(
                f"There is no attack {one!r}. Attacks are {sorted(_FACTORIES)}, "
                f"suites {sorted(_SUITES)}; any other goes in as an object."
            )
        return one, _attack(one, norm)
    if isinstance(one, tuple):
        return str(one[0]), one[1]
    return getattr(one, "__name__", type(one).__name__).lower(), one


def _check_norm(name: str, attack: Any, norm: NormType) -> None:
    if not callable(attack):
        raise ValueError(
            f"The attack {name!r} must be an nsl.attacks object or a function with "
            f"its arguments, but received {attack!r}."
        )
    own = getattr(attack, "norm", norm)
    if own != norm:
        raise ValueError(
            f"The attack {name!r} is of the norm '{NormType(own).value}', but the "
            f"evaluation of '{norm.value}'. Give one of them the other's norm."
        )
