"""The attacks of an evaluation: suites, names and attack objects."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nsl.attacks import (
    FAB,
    FGSM,
    MIFGSM,
    PGD,
    Attack,
    AutoPGD,
    HopSkipJump,
    Square,
    Substitution,
)
from nsl.attacks.attack import as_norm
from nsl.configs import NormType
from nsl.lib.norms import Norm
from nsl.lib.registry import Registry

_DRAWS = 20


def _apgd(norm: Any, samples: int = 1, **settings: Any) -> Attack:
    return AutoPGD(
        norm=norm,
        samples=samples,
        large_radii=norm in (NormType.L1, NormType.L2),
        # The remaining steps make success on a random model more probable.
        early_stop=samples == 1,
        **settings,
    )


def _dlr(norm: Any, classes: int) -> Attack:
    return _apgd(norm, objective="dlr", target_classes=classes)


# The settings of AutoAttack: Croce and Hein (2020), section 5; for L1 (2021), which
# starts with larger radii. These fool more examples under L2, too.
_SETTINGS: dict[str, Callable[[Any], Attack]] = {
    "fgsm": lambda norm: FGSM(norm=norm),
    "mifgsm": lambda norm: MIFGSM(norm=norm),
    "pgd": lambda norm: PGD(norm=norm, steps=40, early_stop=True),
    "pgd-10": lambda norm: PGD(norm=norm, steps=10, early_stop=True),
    "apgd-ce": lambda norm: _apgd(norm, restarts=5 if norm is NormType.L1 else 1),
    "apgd-t": lambda norm: _dlr(norm, 5 if norm is NormType.L1 else 9),
    "apgd-margin": lambda norm: _apgd(norm, objective="margin"),
    "apgd-loss": lambda norm: _apgd(norm, restarts=5),
    "apgd-ce-5": lambda norm: _apgd(norm, restarts=5),
    "apgd-dlr-5": lambda norm: _apgd(norm, restarts=5, objective="dlr"),
    "apgd-t-9": lambda norm: _dlr(norm, 9),
    "apgd-ce-rand": lambda norm: _apgd(norm, samples=_DRAWS),
    "apgd-dlr-rand": lambda norm: _apgd(norm, objective="dlr", samples=_DRAWS),
    "fab-t": lambda norm: FAB(norm=norm, steps=100, target_classes=9),
    "square": lambda norm: Square(norm=norm, steps=5000),
    "square-500": lambda norm: Square(norm=norm, steps=500),
    "hopskipjump": lambda norm: HopSkipJump(norm=norm),
}
_STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
_SUITES = {
    "standard": _STANDARD,
    "plus": ("apgd-ce-5", "apgd-dlr-5", "square", "apgd-t-9", "fab-t"),
    "rand": ("apgd-ce-rand", "apgd-dlr-rand"),
    "quick": ("fgsm", "pgd-10"),
}
_LOSS_SUITES = {
    "standard": ("apgd-loss", "square"),
    "plus": ("apgd-loss", "square"),
    "rand": ("apgd-ce-rand",),
    "quick": ("fgsm", "pgd-10"),
}


# The classes that an attack on the difference of logits ratio needs, and what replaces
# it if the model has fewer.
_WEAKER = {
    "apgd-t": (4, "apgd-margin"),
    "apgd-t-9": (4, "apgd-margin"),
    "apgd-dlr-5": (3, "apgd-margin"),
    "apgd-dlr-rand": (3, "apgd-ce-rand"),
}
_ATTACKS: Registry[Callable[[Any], Attack]] = Registry(
    "attacks",
    "attacks",
    f"Suites are {sorted(_SUITES)}; pass any other attack as an object.",
)
for _name, _make in _SETTINGS.items():
    _ATTACKS.add(_name, _make)


def choose_attacks(
    attacks: str | Sequence[Any] | Mapping[str, Any],
    norm: NormType | Norm | str,
    classes: int,
    *,
    decisions: bool = False,
    differentiable: bool = True,
    native: bool = True,
) -> tuple[dict[str, Any], list[str]]:
    """Returns the attacks to run, by name and in order, and the names replaced.

    Args:
      attacks: A suite, a list of names and attacks, or a dict from name to attack.
      norm: The norm of the evaluation; 'l0' for `nsl.attacks.Substitution`.
      classes: The number of classes; 0 if a loss is attacked. With fewer than 4, the
        margin replaces the targeted difference of logits ratio.
      decisions: Whether the model outputs only class labels.
      differentiable: Whether its outputs have gradients. If not, suites consist of
        attacks without gradients.
      native: Whether it takes tensors. If not, attacks that need gradients are skipped.

    Raises:
      ValueError: If there is no attack, a name is unknown or repeated, or an attack has
        another norm or needs more than the model outputs.
    """
    given: list[Any]
    if isinstance(attacks, str):
        given = list((_SUITES if classes else _LOSS_SUITES).get(attacks, (attacks,)))
        if attacks in _SUITES and decisions:
            given = ["hopskipjump"]
        elif attacks in ("standard", "plus") and classes and not differentiable:
            given += ["hopskipjump"] * (norm in (NormType.L2, NormType.INFINITY))
        elif attacks == "quick" and not native:
            given = ["square-500"]
    elif isinstance(attacks, Mapping):
        given = list(attacks.items())
    else:
        given = list(attacks)
    chosen: dict[str, Any] = {}
    replaced = []
    for one in given:
        needed, weaker = _WEAKER.get(one, (0, "")) if isinstance(one, str) else (0, "")
        if 0 < classes < needed:
            replaced.append(one)
            one = weaker
        name, attack = _named(one, norm)
        if name in chosen and name == weaker:
            continue
        if name in chosen:
            raise ValueError(
                f"Two attacks are named {name!r}: pass a dict from name to attack."
            )
        _check(name, attack, norm, classes, decisions)
        chosen[name] = attack
    if not native:
        able = {n: a for n, a in chosen.items() if not follows_gradients(a)}
        if chosen and not able:
            raise ValueError(
                f"{', '.join(chosen)} need gradients, which a function of NumPy arrays "
                "does not have. Use 'square' or 'hopskipjump'."
            )
        chosen = able
    if not chosen:
        raise ValueError(
            f"attacks must name at least one attack, but received {attacks!r}."
        )
    return chosen, replaced


def follows_gradients(attack: Any) -> bool:
    """Returns whether an attack needs gradients."""
    return isinstance(attack, Attack) and not attack.black_box


def gradient_attack(norm: NormType | Norm) -> Attack:
    """Returns an attack that should succeed on any model if epsilon is huge."""
    return _ATTACKS["pgd"](norm)


def _named(one: Any, norm: NormType | Norm | str) -> tuple[str, Any]:
    if isinstance(one, str) and norm == Substitution.norm:
        raise ValueError(
            "norm='l0' needs the columns that may change: "
            "attacks=[nsl.attacks.Substitution({name: values})], but received the "
            f"attack {one!r}."
        )
    if isinstance(one, str):
        return one, _ATTACKS[one](norm)
    if isinstance(one, tuple):
        return str(one[0]), one[1]
    return getattr(one, "__name__", type(one).__name__).lower(), one


def _value(norm: NormType | Norm | str) -> str:
    return norm if isinstance(norm, str) else norm.value


def _check(
    name: str, attack: Any, norm: NormType | Norm | str, classes: int, decisions: bool
) -> None:
    if not callable(attack):
        raise ValueError(
            f"The attack {name!r} must be an nsl.attacks object or a function with "
            f"its arguments, but received {attack!r}."
        )
    replaces = isinstance(attack, Substitution)
    if replaces != (norm == Substitution.norm):
        raise ValueError(
            f"The attack {name!r} does not fit norm={_value(norm)!r}: norm='l0', the "
            "number of replaced columns, goes with nsl.attacks.Substitution and no "
            "other attack. Evaluate them separately."
        )
    if replaces:
        return
    own = getattr(attack, "norm", norm)
    if as_norm(own) != norm:
        raise ValueError(
            f"The attack {name!r} has norm='{as_norm(own).value}', but the evaluation "
            f"has norm='{_value(norm)}'. Set both to the same norm."
        )
    if not isinstance(attack, Attack):
        return
    if not classes and attack.minimizes:
        raise ValueError(
            f"The attack {name!r} looks for the nearest point of another class, but "
            "this evaluation attacks a loss. Use 'apgd-loss', 'pgd' or 'square'."
        )
    if decisions and attack.needs_scores:
        raise ValueError(
            f"The attack {name!r} needs scores, but the model outputs only class "
            "labels. Use 'hopskipjump', or a function that returns probabilities."
        )
