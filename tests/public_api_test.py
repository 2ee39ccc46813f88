"""No public name or signature changes unless the changelog says so."""

from scripts import public_api

CHANGELOG = (
    "# Changelog\n\n## [2.1.0]\n\n- `Graph.power` is new.\n\n## [2.0.0]\n\nPGD\n"
)


def test_public_names_are_those_of_the_snapshot() -> None:
    new = public_api.describe()
    old = public_api.SNAPSHOT.read_text().splitlines()
    difference = [f"-{line}" for line in old if line not in new]
    difference += [f"+{line}" for line in new if line not in old]
    assert not difference, (
        "Public names or signatures have changed. If that is meant, say it in the"
        " newest section of CHANGELOG.md and run `make api`:\n" + "\n".join(difference)
    )


def test_the_snapshot_sees_functions_classes_fields_and_members() -> None:
    lines = set(public_api.SNAPSHOT.read_text().splitlines())
    assert "nsl.configs.NormType.L1 = 'l1'" in lines
    for start in (
        "nsl.configs.AdvNeighborConfig.adv_step_size",
        "nsl.evaluate_robustness(model: ",
        "nsl.keras.AdversarialRegularization.perturb_on_batch(x: ",
        "nsl.keras.adversarial_loss(features: ",
        "nsl.tools.build_graph(embedding_files: ",
    ):
        assert any(line.startswith(start) for line in lines), start


def test_a_changed_signature_is_found_under_its_public_name() -> None:
    old = ["class nsl.data.Graph()", "nsl.data.Graph.power(hops: int)", "nsl.lib.f(x)"]
    new = ["class nsl.data.Graph()", "nsl.data.Graph.power(hops: int, k: int)"]
    assert public_api.changed(old, new) == ["Graph", "f"]
    assert public_api.changed(old, old) == []


def test_only_the_newest_section_of_the_changelog_counts() -> None:
    assert public_api.unmentioned(["Graph", "PGD"], CHANGELOG) == ["PGD"]
