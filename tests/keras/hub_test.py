"""Models of keras-hub train with adversarial neighbors at a layer of their backbone.

Small models without weights from a network. `make test` leaves them out; `make matrix`
installs keras-hub and runs them.
"""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

import nsl

keras_hub = pytest.importorskip("keras_hub")

pytestmark = pytest.mark.applications

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["good", "bad", "film", "a", "the", "was"]
TEXTS = ["a good film", "the film was bad", "good good", "bad film"] * 2
LABELS = np.array([1, 0, 1, 0] * 2)
SIZES: dict[str, int] = {
    "vocabulary_size": len(WORDS),
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": 32,
}


def preprocessor(length: int) -> Any:
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=WORDS)
    return keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=length
    )


def bert(dtype: str | None = None, reads_texts: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(**SIZES, dtype=dtype)
    return keras_hub.models.BertTextClassifier(
        backbone=backbone,
        num_classes=2,
        preprocessor=preprocessor(8) if reads_texts else None,
    )


def bart() -> keras.Model:
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BartBackbone(**SIZES)
    first = backbone(backbone.input)["decoder_sequence_output"][:, 0]
    return keras.Model(backbone.input, keras.layers.Dense(2)(first))


def vit() -> keras.Model:
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(8, 8, 3),
        patch_size=4,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
    )
    return keras_hub.models.ViTImageClassifier(
        backbone=backbone, num_classes=2, preprocessor=None
    )


def adversarial(
    base: keras.Model, jit_compile: bool = False, **config: Any
) -> keras.Model:
    settings = {"multiplier": 0.5, "adv_step_size": 0.3, **config}
    settings.setdefault("embedding_layer", "token_embedding")
    model = nsl.keras.AdversarialRegularization(
        base, adv_config=nsl.configs.make_adv_reg_config(**settings)
    )
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return model


def check_training(model: keras.Model, x: Any, path: Path) -> None:
    history = model.fit(x, LABELS, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["scaled_adversarial_loss"][0] > 0
    logs = model.evaluate(x, LABELS, verbose=0, return_dict=True)
    keras.saving.save_model(model, path / "model.keras")
    loaded = keras.saving.load_model(path / "model.keras")
    expected = model.predict(x, verbose=0)
    found = loaded.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    again = loaded.evaluate(x, LABELS, verbose=0, return_dict=True)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(again[name], logs[name], rtol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "config"),
    [
        (None, {"pgd_iterations": 3, "jit_compile": True}),
        ("mixed_float16", {"norm_per_position": True}),
        (None, {"objective": "trades"}),
        (None, {"embedding_layer": ["token_embedding", "segment_embedding"]}),
    ],
    ids=str,
)
def test_bert_on_the_output_of_its_preprocessor(
    dtype: str | None, config: dict[str, Any], tmp_path: Path
) -> None:
    check_training(adversarial(bert(dtype), **config), preprocessor(8)(TEXTS), tmp_path)


def test_bert_on_texts(tmp_path: Path) -> None:
    model = adversarial(bert(reads_texts=True), objective="virtual")
    check_training(model, np.array(TEXTS), tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"standardize_layers": True, "pgd_iterations": 2},
        {"random_init": True, "pgd_epsilon": 0.3},
        {"norm_per_position": True, "adv_grad_norm": "infinity"},
    ],
    ids=str,
)
def test_padding_of_bert_is_not_moved_and_does_not_count(
    config: dict[str, Any],
) -> None:
    base = bert()
    model = adversarial(base, **config)
    table = base.backbone.get_layer("token_embedding")
    lengths = []
    for length in (8, 12, 24):
        x = preprocessor(length)(TEXTS)
        vectors = np.asarray(table(x["token_ids"]))
        moves = model.perturb_on_batch(x, LABELS)["token_embedding"] - vectors
        kept = np.asarray(x["padding_mask"]) > 0
        assert np.all(moves[~kept] == 0)
        assert np.all(np.abs(moves[kept]).max(-1) > 0)
        if "standardize_layers" in config:
            moves /= vectors[kept].std(axis=0)
        lengths.append(np.linalg.norm(moves.reshape(len(TEXTS), -1), axis=1))
    if "random_init" not in config:
        np.testing.assert_allclose(lengths[1:], lengths[:1] * 2, rtol=1e-3)
    if "standardize_layers" in config:
        assert np.all(lengths[0] <= 0.6 * (1 + 1e-4))


def test_padding_of_both_texts_of_bart_is_not_moved() -> None:
    base = bart()
    table = base.get_layer("bart_backbone").get_layer("token_embedding")
    model = adversarial(base, random_init=True, pgd_epsilon=0.3, pgd_iterations=2)
    for lengths in ((8, 8), (8, 12)):
        x = {}
        for part, length, shift in zip(
            ("encoder", "decoder"), lengths, (0, 1), strict=True
        ):
            found = preprocessor(length)(TEXTS)
            for name in ("token_ids", "padding_mask"):
                x[f"{part}_{name}"] = np.roll(np.asarray(found[name]), shift, 0)
        points = model.perturb_on_batch(x, LABELS)["token_embedding"]
        for part, point in zip(("encoder", "decoder"), points, strict=True):
            moves = point - np.asarray(table(x[f"{part}_token_ids"]))
            kept = x[f"{part}_padding_mask"] > 0
            assert np.all(moves[~kept] == 0)
            assert np.all(np.abs(moves[kept]).max(-1) > 0)


def test_bert_with_a_graph() -> None:
    config = nsl.configs.make_graph_reg_config(
        max_neighbors=1, multiplier=0.1, embedding_layer="pooled_dense"
    )
    base = bert()
    graph = nsl.keras.GraphRegularization(base, config)
    model = adversarial(graph, pgd_iterations=2)
    x = {name: np.asarray(value) for name, value in preprocessor(8)(TEXTS).items()}
    neighbors = {f"NL_nbr_0_{name}": np.roll(v, 1, 0) for name, v in x.items()}
    batch = {**x, **neighbors, "NL_nbr_0_weight": np.ones((len(x["token_ids"]), 1))}
    history = model.fit(batch, LABELS, verbose=0).history
    assert history["scaled_graph_loss"][0] > 0
    assert history["scaled_adversarial_loss"][0] > 0


@pytest.mark.parametrize(
    "config",
    [
        {"embedding_layer": "vit_patching_and_embedding", "objective": "trades"},
        {"embedding_layer": "vit_encoder", "pgd_iterations": 2},
        {"embedding_layer": None, "jit_compile": True},
    ],
    ids=str,
)
def test_vit(config: dict[str, Any], tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(size=(8, 8, 8, 3)).astype("float32")
    check_training(adversarial(vit(), **config), images, tmp_path)
