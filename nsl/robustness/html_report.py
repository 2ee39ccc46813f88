"""A robustness report as one self-contained HTML page in plain words."""

import base64
import html
import importlib.resources
import math
import os
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import tensorflow as tf

from nsl.configs import NormType
from nsl.files.output_files import atomic_files, check_output
from nsl.lib import features
from nsl.robustness.gallery import GalleryExample
from nsl.robustness.report import RobustnessReport, norm_name, percent, radius_text

_ROWS = 8  # The maximum number of changed columns to list.
_ENLARGED = 112  # Images up to this size are enlarged without smoothing.
_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # Common ranges of pixels.
_CHANNELS = ((), (1,), (3,))
_COLORS = 6
_MEANINGS: dict[Any, str] = {
    "l0": "the number of columns replaced by other allowed values",
    NormType.L1: "the absolute changes of an example sum to at most the radius",
    NormType.L2: "the Euclidean length of the change is at most the radius",
    NormType.INFINITY: "each single value may change by at most the radius",
}
_TITLES = {
    "probabilities_as_logits": "Probabilities were treated as logits",
    "logits_as_probabilities": "Logits were treated as probabilities",
    "zero_gradients": "The model has no gradients for attacks to follow",
    "exploding_gradients": "The model's gradients are unusable",
    "random_model": "The model answers differently each time",
    "inputs_out_of_bounds": "Examples lie outside the valid range",
    "model_at_chance": "The model is no better than guessing",
    "too_few_classes": "A weaker attack replaced another one",
    "black_box_beats_white_box": "An attack that knows less did better",
    "robust_at_huge_epsilon": "An attack fails where every attack should succeed",
    "left_the_ball": "An attack broke the rules",
    "guessed_outputs": "The kind of outputs was a guess",
    "batch_dependent": "A prediction depends on the rest of its batch",
    "optimizes": "The model optimizes at inference",
}


def write(
    report: RobustnessReport,
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes a report as an HTML file, see `RobustnessReport.to_html`."""
    check_output(os.fspath(path))
    template = importlib.resources.files(__package__).joinpath("report.html")
    count = report.num_examples
    tiles = [
        (f"robust accuracy, radius\xa0{radius_text(e)}", share)
        for e, share in report.robust_accuracy.items()
    ]
    tiles += [
        (f"certified, radius\xa0{radius_text(e)}", share)
        for e, share in report.certified_accuracy.items()
    ]
    parts = {
        "tiles": _facts(
            [
                name,
                [_el("strong", percent(share)), f" {share * count:.0f} of {count:,}"],
            ]
            for name, share in [("no attack", report.clean_accuracy), *tiles]
        ),
        "norm": norm_name(report.norm),
        "meaning": _MEANINGS.get(report.norm, ""),
        "count": f"{count:,}",
        "chance": f"{100 / math.sqrt(count):.2g}",
        **_table(report),
        **_curve(report),
        "warnings": _warnings(report),
        "assumptions": _each("li", report.assumptions or ["None."]),
        "gallery": _gallery(report, class_names, feature_names),
    }
    page = string.Template(template.read_text("utf-8")).substitute(
        {name: _html(part) for name, part in parts.items()}
    )
    with atomic_files([os.fspath(path)]) as (file,):
        file.write(page.encode("utf-8", "replace"))


def _el(tag: str, *children: Any, **attributes: Any) -> ET.Element:
    """Returns an element; children are elements, texts, or lists of them."""
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    element = ET.Element(tag, {names[k]: str(v) for k, v in attributes.items()})
    for child in children:
        for part in child if isinstance(child, list) else [child]:
            if isinstance(part, ET.Element):
                element.append(part)
            elif len(element):
                element[-1].tail = (element[-1].tail or "") + str(part)
            else:
                element.text = (element.text or "") + str(part)
    return element


def _each(tag: str, items: Iterable[Any]) -> list[ET.Element]:
    return [_el(tag, item) for item in items]


def _facts(facts: Iterable[Sequence[Any]]) -> list[ET.Element]:
    return [_el("div", _el("dt", name), _el("dd", fact)) for name, fact in facts]


def _head(cells: Iterable[str]) -> ET.Element:
    return _el("tr", [_el("th", cell, scope="col") for cell in cells])


def _rows(rows: Iterable[Sequence[str]]) -> list[ET.Element]:
    """Returns table rows, with the first cell of each as its header."""
    cells = [(_el("th", row[0], scope="row"), _each("td", row[1:])) for row in rows]
    return [_el("tr", *parts) for parts in cells]


def _html(part: Any) -> str:
    """Returns the markup of an element, an escaped text, or a list of them."""
    if isinstance(part, list):
        return "\n".join(map(_html, part))
    if isinstance(part, str):
        return html.escape(part)
    return ET.tostring(part, encoding="unicode", method="html")


def _table(report: RobustnessReport) -> dict[str, Any]:
    head, *rows = report.table()
    return {"head": _head(["attack", *head[1:]]), "rows": _rows(rows)}


def _curve(report: RobustnessReport) -> dict[str, Any]:
    """Draws accuracy against the radius; radii that are texts are equally spaced."""
    words = any(isinstance(epsilon, str) for epsilon in report.epsilons)
    values = range(1, len(report.epsilons) + 1) if words else report.epsilons
    xs = [56 + 408 * value / max(values) for value in (0, *values)]
    ticks, free = [], -math.inf
    for x, value in zip(xs, (0, *values), strict=True):
        ticks.append(_el("path", d=f"M{x:.1f} 260v6", class_="axis"))
        half = 5 * len(radius_text(value))
        if x - half > free:
            ticks.append(
                _el("text", radius_text(value), x=f"{x:.1f}", y=282, class_="x")
            )
            free = x + half
    lines, legend = [], []
    after = "after " if report.cascade else ""
    named = [(after + name, line) for name, line in report.accuracy.items()]
    if report.certified is not None:
        named.append(("certified", report.certified_accuracy))
    for i, (name, line) in enumerate(
        [("robust accuracy", report.robust_accuracy), *named]
    ):
        style = f"line l{(i - 1) % _COLORS}" if i else "worst"
        ys = [260 - 240 * share for share in (report.clean_accuracy, *line.values())]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        lines.append(_el("polyline", _el("title", name), points=points, class_=style))
        key = _el("path", d="M0 6H32", class_=style)
        key = _el("svg", key, viewBox="0 0 32 12", aria_hidden="true")
        legend.append(_el("li", key, f" {name}"))
    steps = [
        f"{percent(s)} at {radius_text(e)}" for e, s in report.robust_accuracy.items()
    ]
    return {
        "ticks": ticks,
        "lines": lines,
        "legend": legend,
        "axis": "radius, by column of the table" if words else "radius",
        "description": f"Without an attack: {percent(report.clean_accuracy)} correct; "
        f"robust accuracy {', '.join(steps)}.",
    }


def _warnings(report: RobustnessReport) -> list[ET.Element]:
    if not report.warnings:
        text = "None. If checks were run, they found no problem."
        return [_el("p", text)]
    items = []
    for name, message in ((f.name, f.message) for f in report.warnings):
        title = _TITLES.get(name, name.replace("_", " ").capitalize())
        check = _el("p", "Name of the check: ", _el("code", name), class_="note")
        items.append(_el("li", _el("h3", title), _el("p", message), check))
    text = (
        "These findings cast doubt on the results above: the model may be weaker than "
        "they suggest. Follow the advice, then evaluate again."
    )
    return [_el("p", text), _el("ul", items, class_="warnings")]


def _gallery(
    report: RobustnessReport, class_names: Any, feature_names: Any
) -> list[ET.Element]:
    groups: dict[str, list[ET.Element]] = {}
    order: dict[Any, int] = {epsilon: i for i, epsilon in enumerate(report.epsilons)}
    for example in sorted(
        report.gallery, key=lambda e: order.get(e.epsilon, len(order))
    ):
        facts = [
            ("Label", _class_name(example.label, class_names)),
            ("Predicted", _class_name(example.predicted, class_names)),
        ]
        if example.epsilon is not None:
            title = "Fooled the model, the most fragile first"
            attacked_as = _class_name(example.attacked_as, class_names)
            facts += [
                ("Predicted under attack", attacked_as),
                ("Attack", example.attack),
                ("Radius", radius_text(example.epsilon)),
            ]
        elif example.label == example.predicted:
            title = "Robust against every attack"
        else:
            title = "Misclassified without an attack"
        card = _el("article", _el("h4", f"Example {example.index}"))
        card.append(_el("dl", _facts(facts), class_="facts"))
        card.extend(_looks(example, feature_names))
        groups.setdefault(title, []).append(card)
    sections: list[ET.Element] = []
    for title, cards in groups.items():
        sections += [_el("h3", title), _el("div", cards, class_="cards")]
    return sections or [_el("p", "The report contains none.")]


def _class_name(text: str | None, class_names: Any) -> str | None:
    if text is None or class_names is None or not text.isdecimal():
        return text
    if isinstance(class_names, str | Mapping) or int(text) >= len(class_names):
        raise ValueError(
            f"class_names must be a list with a name for each class, at least "
            f"{int(text) + 1} as there is a class {text}, but received {class_names!r}."
        )
    return str(class_names[int(text)])


def _looks(example: GalleryExample, feature_names: Any) -> list[ET.Element]:
    """Shows the changes by an attack: images, and a table of all other features."""
    clean, fooled = example.clean, example.attacked is not None
    images: list[ET.Element] = []
    changes: list[tuple[float, list[str]]] = []
    changed = 0
    for name, start, end, columns in zip(
        features.names(clean),
        tf.nest.flatten(clean),
        tf.nest.flatten(example.attacked if fooled else clean),
        features.spread(feature_names, clean, "feature_names"),
        strict=True,
    ):
        _check_columns(name, start, columns)
        if columns is None and _is_image(start):
            for what, pixels in _images(start, end if fooled else None):
                caption = f"{name}: {what}" if name else what
                alt = f"Example {example.index}, {caption}"
                small = "small" if max(start.shape) <= _ENLARGED else "large"
                image = _el("img", src=_png(pixels), alt=alt, class_=small)
                images.append(_el("figure", image, _el("figcaption", caption)))
        elif start.dtype.kind in "biuf":
            sizes = np.abs(end.astype(np.float64) - start.astype(np.float64))
            sizes = np.nan_to_num(sizes)
            changed += int(np.count_nonzero(sizes))
            for position in np.argsort(-sizes, axis=None, kind="stable")[:_ROWS]:
                at = np.unravel_index(position, sizes.shape)
                cells = [f"{start[at]:.6g}", f"{end[at]:.6g}"]
                changes.append(
                    (sizes[at], [_where(name, at, columns, start.size), *cells])
                )
    changes = sorted(changes, key=lambda change: -change[0])[: min(changed, _ROWS)]
    table = _el(
        "table",
        _el("caption", f"The largest {len(changes)} of {changed} changes"),
        _el("thead", _head(["column", "before", "after"])),
        _el("tbody", _rows(row for _size, row in changes)),
    )
    return [_el("div", images, class_="images")] * bool(images) + [table] * bool(
        changes
    )


def _check_columns(name: str, feature: np.ndarray, columns: Any) -> None:
    width = feature.shape[-1] if feature.ndim else 1
    if columns is not None and (isinstance(columns, str) or len(columns) != width):
        raise ValueError(
            f"feature_names{f' of feature {name!r}' if name else ''} must be a list of "
            f"{width} names, one for each column, but received {columns!r}."
        )


def _where(feature: str, index: Sequence[Any], columns: Any, size: int) -> str:
    """Returns the name of a coordinate: 'age', 'column 3' or 'series: [3, 1]'."""
    where = [*map(str, index)]
    if columns is not None:
        where[-1:] = [str(columns[index[-1] if index else 0])]
    elif size == 1:
        return feature or "value"
    elif len(where) == 1:
        where = [f"column {where[0]}"]
    text = where[0] if len(where) == 1 else f"[{', '.join(where)}]"
    return f"{feature}: {text}" if feature else text


def _is_image(feature: np.ndarray) -> bool:
    planar = feature.ndim > 1 and min(feature.shape[:2]) > 3
    return planar and feature.dtype.kind == "f" and feature.shape[2:] in _CHANNELS


def _images(
    clean: np.ndarray, attacked: np.ndarray | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields captions and images with pixels in [0, 1]."""
    pair = np.stack([clean, clean if attacked is None else attacked])
    pair = np.nan_to_num(pair.astype(np.float64), posinf=0.0, neginf=0.0)
    least, most = float(pair.min()), float(pair.max())
    ranges = [r for r in _RANGES if r[0] <= least and r[1] / 4 < most <= r[1]]
    low, high = (*ranges, (least, most))[0]
    shown = (pair - low) / (high - low or 1.0)
    yield "clean", shown[0]
    if attacked is not None:
        yield "attacked", shown[1]
        change = pair[1] - pair[0]
        largest = float(np.abs(change).max())
        caption = f"difference: gray is 0, the largest {largest:.3g}"
        yield caption, 0.5 + 0.5 * change / (largest or 1.0)


def _png(pixels: np.ndarray) -> str:
    levels = np.round(255.0 * np.clip(np.atleast_3d(pixels), 0.0, 1.0))
    data = tf.io.encode_png(levels.astype(np.uint8)).numpy()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
