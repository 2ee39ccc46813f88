"""The HTML page: what it says, that it is well-formed, and loads nothing."""

import html.parser
import json
import re
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import tensorflow as tf

from nsl.robustness import AttackResult, Finding, GalleryExample, RobustnessReport

VOID = {"img", "meta"}
SCRIPT = "<script>alert(1)</script>"
IMAGE = np.linspace(0.0, 1.0, 48, dtype=np.float32).reshape(4, 4, 3)
VECTOR = np.arange(10.0, dtype=np.float32)


class Page(html.parser.HTMLParser):
    """Elements in order as (tag, attributes, text inside), all tags closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any], list[str]]] = []
        self.open: list[tuple[str, dict[str, Any], list[str]]] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        element: Any = (tag, dict(attributes), [])
        assert len(element[1]) == len(attributes)
        self.found.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _tag, _attributes, texts in self.open:
            texts.append(data)

    def texts(self, tag: str) -> list[str]:
        return [
            " ".join("".join(t).split()) for name, _, t in self.found if name == tag
        ]

    def rows(self) -> list[list[str]]:
        rows: list[list[str]] = []
        for tag, _attributes, texts in self.found:
            if tag == "tr":
                rows.append([])
            elif tag in ("th", "td"):
                rows[-1].append("".join(texts))
        return rows

    def attributes(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes, _ in self.found if name == tag]


def _example(clean: Any, attacked: Any = None, **changes: Any) -> GalleryExample:
    fell = attacked is not None
    return attrs.evolve(
        GalleryExample(
            index=7,
            label="1",
            predicted="1",
            attacked_as="0" if fell else None,
            epsilon=0.3 if fell else None,
            attack="pgd" if fell else None,
            clean=clean,
            attacked=attacked,
        ),
        **changes,
    )


@pytest.fixture
def report() -> RobustnessReport:
    robust = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 0, 0]], bool)
    return RobustnessReport(
        norm="l2",
        epsilons=(0.1, 0.3),
        correct=np.array([1, 1, 1, 1, 0], bool),
        results={
            "pgd": AttackResult(robust, [1.5, 0.25], [100, 2000]),
            "a <b> & 'c'": AttackResult(robust, [2.0, 0.0], [10, 30]),
        },
        warnings=[
            Finding("random_model", "Two passes differ by > 1 & more."),
            Finding("unknown_check", SCRIPT),
        ],
        assumptions=["The outputs are treated as <logits>."],
        gallery=[_example(VECTOR, VECTOR + np.eye(10, dtype=np.float32)[3])],
    )


def _write(report: RobustnessReport, tmp_path: Path, **names: Any) -> Page:
    report.to_html(tmp_path / "report.html", **names)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    return Page(tmp_path / "report.html")


def test_the_figures_are_those_of_the_report(
    report: RobustnessReport, tmp_path: Path
) -> None:
    page = _write(report, tmp_path)
    assert page.texts("h2") == [
        "Summary",
        "Accuracy under each attack",
        "Accuracy against the radius",
        "Warnings",
        "What was assumed",
        "Examples",
    ]
    assert page.texts("dd")[:3] == ["80.0% 4 of 5", "60.0% 3 of 5", "20.0% 1 of 5"]
    assert page.rows()[:5] == [
        ["attack", "0.1", "0.3", "seconds", "passes"],
        ["clean", "80.0%", "80.0%", "", ""],
        ["pgd", "60.0%", "20.0%", "1.8", "2,100"],
        ["then a <b> & 'c'", "60.0%", "20.0%", "2.0", "40"],
        ["robust accuracy", "60.0%", "20.0%", "", ""],
    ]
    assert "L2 norm" in " ".join(page.texts("p"))
    assert "60.0% at 0.1, 20.0% at 0.3" in page.texts("desc")[0]
    lines = [line["points"] for line in page.attributes("polyline")]
    assert lines == ["56.0,68.0 192.0,116.0 464.0,212.0"] * 3
    assert "The outputs are treated as <logits>." in page.texts("li")


def test_warnings_are_in_plain_words(report: RobustnessReport, tmp_path: Path) -> None:
    page = _write(report, tmp_path)
    assert "The model answers differently each time" in page.texts("h3")
    assert "Unknown check" in page.texts("h3")
    assert {"Two passes differ by > 1 & more.", SCRIPT} <= set(page.texts("p"))
    report.warnings = []
    report.gallery = []
    page = _write(report, tmp_path)
    assert page.texts("h3") == []
    assert "The report contains none." in page.texts("p")


def test_what_comes_from_data_is_escaped(
    report: RobustnessReport, tmp_path: Path
) -> None:
    names = [f'"{i}" <i>\'$x</i>' for i in range(10)]
    page = _write(report, tmp_path, class_names=["cat", SCRIPT], feature_names=names)
    assert not page.texts("script")
    assert not page.texts("i")
    assert page.texts("dd")[3:] == [SCRIPT, SCRIPT, "cat", "pgd", "0.3"]
    assert page.rows()[-1] == [names[3], "3", "4"]


def test_it_loads_nothing_and_can_be_navigated(
    report: RobustnessReport, tmp_path: Path
) -> None:
    report.gallery.append(_example(IMAGE, 1.0 - IMAGE))
    page = _write(report, tmp_path)
    ids = {a["id"] for _tag, a, _texts in page.found if "id" in a}
    for _tag, attributes, _texts in page.found:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
        if "href" in attributes:
            assert attributes["href"][1:] in ids
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, "result") in ids
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import|https?:", page.source)
    assert page.attributes("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.attributes("img"))
    assert all(cell["scope"] for cell in page.attributes("th"))


def _pixels(page: Page) -> list[np.ndarray]:
    data = [image["src"].partition(",")[2] for image in page.attributes("img")]
    data = [text.replace("+", "-").replace("/", "_") for text in data]
    return [tf.io.decode_png(tf.io.decode_base64(text)).numpy() for text in data]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (IMAGE, IMAGE),
        (2 * IMAGE - 1, IMAGE),
        (255 * IMAGE, IMAGE),
        (16 * IMAGE[..., 0], IMAGE[..., :1] / IMAGE[..., 0].max()),
        (np.zeros((5, 4, 1), np.float16), np.zeros((5, 4, 1))),
        (np.full((4, 4), np.nan, np.float32), np.zeros((4, 4, 1))),
    ],
)
def test_images(
    report: RobustnessReport, tmp_path: Path, image: np.ndarray, expected: np.ndarray
) -> None:
    report.gallery = [_example(image, image), _example(image)]
    page = _write(report, tmp_path)
    clean, attacked, difference, withstood = _pixels(page)
    np.testing.assert_allclose(clean, 255 * expected, atol=1)
    np.testing.assert_array_equal(clean, attacked)
    np.testing.assert_array_equal(clean, withstood)
    np.testing.assert_array_equal(difference, np.full_like(clean, 128))
    assert page.attributes("img")[1]["alt"] == "Example 7, attacked"


def test_the_largest_changes_of_a_structure(
    report: RobustnessReport, tmp_path: Path
) -> None:
    clean = {
        "age": np.float32(30),
        "city": np.array([b"K\xc3\xb6ln"], object),
        "named": np.zeros((4, 4), np.float32),
        "pair": (np.zeros((1,), np.float32), IMAGE),
        "series": np.zeros((5, 2), np.float32),
    }
    attacked = {
        **clean,
        "age": np.float32(31.5),
        "named": np.eye(4, dtype=np.float32),
        "pair": (np.ones((1,), np.float32), IMAGE / 2),
        "series": np.full((5, 2), -0.5, np.float32),
    }
    report.gallery = [_example(clean, attacked)]
    page = _write(report, tmp_path, feature_names={"named": list("abcd")})
    assert page.texts("caption")[-1] == "The largest 8 of 16 changes"
    assert page.rows()[-8:] == [
        ["age", "30", "31.5"],
        *([f"named: [{i}, {name}]", "0", "1"] for i, name in enumerate("abcd")),
        ["pair/0", "0", "1"],
        ["series: [0, 0]", "0", "-0.5"],
        ["series: [0, 1]", "0", "-0.5"],
    ]
    assert page.texts("figcaption")[:2] == ["pair/1: clean", "pair/1: attacked"]


def test_the_most_fragile_come_first(report: RobustnessReport, tmp_path: Path) -> None:
    report.epsilons = ("small, in words", "large")
    report.gallery = [
        _example(VECTOR, index=1),
        _example(VECTOR, VECTOR, index=2, epsilon="large"),
        _example(VECTOR, VECTOR, index=3, epsilon="small, in words"),
        _example(VECTOR, index=4, predicted="0"),
    ]
    page = _write(report, tmp_path)
    assert page.texts("h4") == ["Example 3", "Example 2", "Example 1", "Example 4"]
    assert page.texts("h3")[-2:] == [
        "Robust against every attack",
        "Misclassified without an attack",
    ]
    assert page.texts("th")[1] == "small, in words"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"class_names": ["a"]}, r"at least 2 as there is a class 1, .*\['a'\]"),
        ({"class_names": "ab"}, "must be a list .* received 'ab'"),
        ({"feature_names": ["a"]}, r"list of 10 names, .* received \['a'\]"),
        ({"feature_names": "abcdefghij"}, "list of 10 names"),
        ({"feature_names": {"x": ["a"]}}, "single tensor"),
    ],
)
def test_names_that_do_not_fit(
    report: RobustnessReport, tmp_path: Path, names: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        report.to_html(tmp_path / "report.html", **names)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [{"y": ["a"]}, {"x": ["a"]}])
def test_names_that_do_not_fit_a_structure(
    report: RobustnessReport, tmp_path: Path, names: Any
) -> None:
    report.gallery = [_example({"x": VECTOR})]
    with pytest.raises(
        ValueError, match=r"feature_names .*(unknown features|10 names)"
    ):
        report.to_html(tmp_path / "report.html", feature_names=names)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_missing(report: RobustnessReport, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"directory of the output .*missing"):
        report.to_html(tmp_path / "missing" / "report.html")


def test_json_keeps_assumptions_and_gallery(report: RobustnessReport) -> None:
    clean = {"a": (IMAGE, VECTOR.astype(">f8")), "b": np.array([b"x", b"yz"], object)}
    report.gallery.append(_example(clean, {**clean, "a": (1 - IMAGE, VECTOR)}))
    report.gallery.append(
        _example(np.array([np.nan, -0.0, 3], tf.bfloat16.as_numpy_dtype))
    )
    report.gallery.append(_example(np.zeros((0, 2), np.int8), epsilon="in words"))
    restored = RobustnessReport.from_json(report.to_json())
    assert restored == report
    image = restored.gallery[1].clean["a"][0]
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, IMAGE)
    assert restored.gallery[1].clean["b"].tolist() == ["x", "yz"]
    other = attrs.evolve(report.gallery[0], clean=VECTOR + 1)
    assert other != restored.gallery[0]


def test_json_of_version_1_has_neither(report: RobustnessReport) -> None:
    data = json.loads(report.to_json())
    assert data["version"] == 2
    del data["assumptions"], data["gallery"]
    old = RobustnessReport.from_json(json.dumps(data | {"version": 1}))
    assert (old.assumptions, old.gallery) == ([], [])
    np.testing.assert_array_equal(old.robust, report.robust)
