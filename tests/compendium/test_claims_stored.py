"""The authors' stored metrics: their files read on made-up ones, the table, and printed numbers beside stored ones."""

import csv

import numpy as np
import pandas
import pytest

from compendium import paths as places
from compendium.claims import stored
from compendium.claims.published import NotPublishedError

EPSILONS = np.linspace(0, 1, 20)
RNG = np.random.default_rng(0)


def put(folder, name, header, values):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, values, header="\n".join(header), fmt="%.9g")


def curve(folder, name, values, reference):
    put(folder, name, ["FGSM", f"Model_dataset & validation set: {reference}"], np.column_stack([EPSILONS, *values]))


BOUNDARY = [
    "Boundary attack with validation_dataset(2100 images)",
    "Model_dataset & validation set: density: 1.25",
    "Model_dataset & validation adv (2100): density: 0.5",
    "Model_dataset & validation set: coverage: 0.125",
    "Model_dataset & validation adv (2100): coverage: 0.0625",
]


def chosen(table, **where):
    for column, value in where.items():
        table = table[table[column.replace("_", " ")] == value]
    return table


def test_a_curve_gives_reference_accuracy_and_values_at_all_epsilons(tmp_path):
    accuracy, density = RNG.random(20), RNG.random(20)
    curve(tmp_path, "fgsm/organmnist/FGSM_attack_organmnist_density.dat", (accuracy, density), 1.5)
    table = stored.rows(tmp_path)
    assert tuple(table.columns) == stored.COLUMNS and len(table) == 41
    assert set(table["data set"]) == {"OrganMNIST"} and set(table["network"]) == {stored.PAPER}
    assert chosen(table, kind="reference")["value"].tolist() == [1.5]
    for what, values in (("accuracy", accuracy), ("density", density)):
        found = chosen(table, what=what, kind="adversarial")
        np.testing.assert_allclose(found["x"], EPSILONS)
        np.testing.assert_allclose(found["value"], values, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "title", "network"),
    [
        ("fgsm/mnist/FGSM_attack_coverage.dat", "MNIST", stored.PAPER),
        ("fgsm/mnist/FGSM_attack_mnist_FX_NewNet_coverage.dat", "MNIST", stored.FEATURES),
        ("fgsm/organmnist/FGSM_attack_orgmnist_FX_coverage.dat", "OrganMNIST", stored.FEATURES),
        ("fgsm/model_capacity/FGSM_attack_overfit_coverage.dat", "MNIST", "overfit"),
        ("fgsm/resnet/FGSM_attack_resnet34_coverage.dat", "MNIST", "resnet34"),
    ],
)
def test_names_say_data_set_and_network(tmp_path, name, title, network):
    curve(tmp_path, name, (np.ones(20), np.ones(20)), 1)
    table = stored.rows(tmp_path)
    assert set(table["data set"]) == {title} and set(table["network"]) == {network}
    assert set(table["what"]) == {"accuracy", "coverage"}


def test_batches_under_fgsm_become_quartiles_at_each_epsilon(tmp_path):
    batches = RNG.random((7, 20, 2))
    put(tmp_path, "fgsm/pathmnist/FGSM_attack_pathmnist_100batch_adv_metrics.dat", [], batches.reshape(-1, 2))
    put(tmp_path, "fgsm/pathmnist/FGSM_attack_pathmnist_100batch_metrics.dat", [], batches[:, 0])
    table = stored.rows(tmp_path)
    for column, what in enumerate(("density", "coverage")):
        for name, share in stored.QUARTILES.items():
            found = chosen(table, what=what, kind="adversarial", statistic=name)
            np.testing.assert_allclose(found["x"], EPSILONS)
            np.testing.assert_allclose(found["value"], np.quantile(batches[:, :, column], share, axis=0), atol=1e-8)
            (reference,) = chosen(table, what=what, kind="reference", statistic=name)["value"]
            assert reference == pytest.approx(np.quantile(batches[:, 0, column], share), abs=1e-8)


def test_the_boundary_attack_gives_the_whole_batch_and_quartiles(tmp_path):
    batches = np.column_stack([np.arange(9), RNG.random((9, 4))])
    put(tmp_path, "bdy_attack/Boundary_attack_42batch_metrics.dat", BOUNDARY, batches)
    # As in the one file whose last line names the wrong statistic.
    wrong = [*BOUNDARY[:-1], BOUNDARY[-1].replace("coverage", "density")]
    put(tmp_path, "bdy_attack/Boundary_attack_organmnist_49batch_metrics.dat", wrong, batches)
    table = stored.rows(tmp_path)
    for title, size in (("MNIST", 42), ("OrganMNIST", 49)):
        whole = chosen(table, data_set=title, statistic="value")
        assert set(whole["x"]) == {2100} and len(whole) == 4
        by_kind = {
            (what, kind): value for what, kind, value in whole[["what", "kind", "value"]].itertuples(index=False)
        }
        assert by_kind == {
            ("density", "reference"): 1.25, ("density", "adversarial"): 0.5,
            ("coverage", "reference"): 0.125, ("coverage", "adversarial"): 0.0625,
        }  # fmt: skip
        (median,) = chosen(table, data_set=title, what="coverage", kind="reference", statistic="median")["value"]
        assert median == pytest.approx(np.median(batches[:, 3]), abs=1e-8)
        assert set(chosen(table, data_set=title, statistic="q25")["x"]) == {size}


def test_mixtures_name_their_share_and_how_they_were_drawn(tmp_path):
    values = RNG.random((3, 20))
    four = np.column_stack([EPSILONS, *values])
    put(tmp_path, "fgsm/mnist_mix/FGSM_attack_mnist_NewNet_25mix_valiadv.dat", [], four)
    put(tmp_path, "fgsm/organmnist/mix/FGSM_attack_organmnist_NewNet_50randmix_valiadv.dat", [], four)
    put(tmp_path, "fgsm/pathmnist/mix/FGSM_attack_pathmnist_1C_NewNet_75randmix_valiadv.dat", [], four[:, :3])
    table = stored.rows(tmp_path)
    kinds = table[table["what"] == "density"].groupby("data set")["kind"].unique().map(list).to_dict()
    assert kinds == {
        "MNIST": ["ordered mixture, 25 % adversarial"],
        "OrganMNIST": ["random mixture, 50 % adversarial"],
        "PathMNIST": ["random mixture, 75 % adversarial"],
    }
    np.testing.assert_allclose(chosen(table, data_set="MNIST", what="density")["value"], values[1], atol=1e-8)
    np.testing.assert_allclose(chosen(table, data_set="PathMNIST", what="density")["value"], values[0], atol=1e-8)


def test_files_that_are_not_understood_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder must hold the authors' metric files"):
        stored.rows(tmp_path)
    put(tmp_path, "fgsm/mnist/FGSM_attack_density.dat", ["validation set: 1"], np.ones((20, 2)))
    with pytest.raises(ValueError, match=r"fgsm/mnist/FGSM_attack_density\.dat must hold .* 3 numbers a line"):
        stored.rows(tmp_path)
    curve(tmp_path, "fgsm/mnist/FGSM_attack_density.dat", (np.ones(20), np.ones(20)), 1)
    put(tmp_path, "fgsm/other.dat", [], np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"fgsm/other\.dat must be named like"):
        stored.rows(tmp_path)


def test_what_is_written_is_read_back(tmp_path):
    curve(tmp_path, "fgsm/mnist/FGSM_attack_density.dat", (RNG.random(20), RNG.random(20)), 0.75)
    path = stored.write(tmp_path, tmp_path / "stored.csv")
    expected, found = stored.rows(tmp_path), stored.load(path=path)
    pandas.testing.assert_frame_equal(found.drop(columns="value"), expected.drop(columns="value"), check_dtype=False)
    np.testing.assert_allclose(found["value"], expected["value"], rtol=1e-6)


# --- The committed table ----------------------------------------------------------------------------------------


def test_conditions_choose_rows():
    found = stored.load({"data set": ["MNIST", "OrganMNIST"], "what": "density", "x": 0.316, "statistic": "value"})
    assert set(found["data set"]) == {"MNIST", "OrganMNIST"} and set(found["what"]) == {"density"}
    np.testing.assert_allclose(found["x"], 6 / 19, atol=1e-6)


def test_bad_conditions_and_tables_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"where must name columns of file, data set, .*, but names 'dataset'"):
        stored.load({"dataset": "MNIST"})
    with pytest.raises(ValueError, match="where must be met by some stored row"):
        stored.load({"data set": "CIFAR-10"})
    with pytest.raises(FileNotFoundError, match=r"no stored metrics at .*; make them with: python -m compendium"):
        stored.load(path=tmp_path / "none.csv")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"bad\.csv must have the columns file, data set, .*, but has a, b"):
        stored.load(path=tmp_path / "bad.csv")


def test_the_table_has_every_file_and_no_gap():
    table = stored.load()
    assert table["file"].nunique() == 66 and table["value"].notna().all()
    assert set(table["data set"]) == set(stored.TITLES.values())
    curves = table[(table["attack"] == "FGSM") & table["x"].notna()]
    assert (curves.groupby(["file", "what", "kind", "statistic"]).size() == 20).all()
    untouched = table[(table["attack"] == "FGSM") & table["x"].isna()]
    assert set(untouched["kind"]) == {"reference"}


# --- Print and store --------------------------------------------------------------------------------------------


def printed():
    with (places.PUBLISHED / "vs22.csv").open(newline="", encoding="utf-8") as file:
        return {(line["item"], line["row"], line["column"]): line["value"] for line in csv.DictReader(file)}


def test_every_rule_leads_to_a_finite_number():
    keys = stored.mapping()
    assert len(keys) > 80 and {key[0] for key in keys} == {
        "§5.1", "§5.2", "Table 4", "Table 5", "Figure 12", "stored results"
    }  # fmt: skip
    assert all(np.isfinite(stored.counterpart(key)) for key in keys)


def test_rows_that_were_typed_from_the_store_agree_with_it():
    texts = {key: text for key, text in printed().items() if key[0] in ("stored results", "Figure 12")}
    assert set(texts) <= set(stored.mapping()) and len(texts) > 40
    for key, text in texts.items():
        half = 0.5 * 10.0 ** -len(text.partition(".")[2])
        assert stored.counterpart(key) == pytest.approx(float(text), abs=1.001 * half), key


def test_ranges_of_the_boundary_attack_are_those_of_the_quartiles():
    for title, sizes in (("MNIST", (21, 42, 60, 84, 100, 120, 140)), ("OrganMNIST", (49, 100, 150, 200, 250, 300))):
        for kind in ("reference", "adversarial"):
            rows = stored.load({"attack": "boundary", "data set": title, "what": "density", "kind": kind})
            quartiles = rows[rows["statistic"].isin(["q25", "q75"])]
            assert set(quartiles["x"]) == set(sizes)
            for edge, value in (("smallest", quartiles["value"].min()), ("largest", quartiles["value"].max())):
                assert stored.counterpart(("§5.2", title, f"{kind} density {edge}")) == value


def test_keys_may_name_the_paper_and_others_have_no_counterpart():
    key = ("§5.1", "MNIST", "reference density")
    assert stored.counterpart(("vs22", *key)) == stored.counterpart(key) == pytest.approx(0.99724, abs=1e-5)
    assert stored.counterpart(("Table 5", "MNIST", "share=0.5")) is None
    assert stored.counterpart(("Appendix C", "MNIST", "dominant class")) is None


def test_a_mixed_density_lies_on_the_line_between_the_stored_ends():
    ends = (
        stored.counterpart(("Table 4", "MNIST", "share=0")),
        stored.load(
            {"attack": "boundary", "data set": "MNIST", "what": "density", "kind": "adversarial", "statistic": "value"}
        )["value"].iloc[0],
    )
    assert stored.counterpart(("Table 4", "MNIST", "share=0.25")) == pytest.approx(0.75 * ends[0] + 0.25 * ends[1])


def test_one_draw_of_a_mixture_lies_where_chance_says(monkeypatch):
    rng = np.random.default_rng(0)
    images, share = 2_000, 0.25
    clean, attacked = rng.normal(1, 0.8, images), rng.normal(5, 3, images)
    rows = []
    for kind, values in (("reference", clean), ("adversarial", attacked)):
        rows.append(("whole", "A", "boundary", "p", "density", kind, images, "value", values.mean()))
        for size in (20, 50, 100):
            batches = rng.permutation(values).reshape(-1, size).mean(1)
            rows += [
                ("b", "A", "boundary", "p", "density", kind, size, name, np.quantile(batches, q))
                for name, q in stored.QUARTILES.items()
            ]
    table = pandas.DataFrame(rows, columns=stored.COLUMNS).astype({"x": float})
    rule = {"where": {"file": "whole"}, "take": "line", "share": share}
    monkeypatch.setattr(stored, "_table", lambda path: table)
    monkeypatch.setattr(stored, "mapping", lambda: {("T", "A", "s"): rule, ("T", "A", "0"): {"take": "value"}})
    drawn = []
    for _ in range(2_000):
        replaced = rng.permutation(images)[: round(share * images)]
        drawn.append(np.where(np.isin(np.arange(images), replaced), attacked, clean).mean())
    off = stored.chance(("T", "A", "s"))
    # The quartiles of at most 100 batches tell a deviation to about a tenth.
    assert off == pytest.approx(1.96 * np.std(drawn), rel=0.25)
    assert np.mean(np.abs(np.array(drawn) - stored.counterpart(("T", "A", "s"))) <= off) == pytest.approx(
        0.95, abs=0.06
    )
    assert stored.chance(("T", "A", "0")) == stored.chance(("T", "A", "not there")) == 0


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"where": {"data set": "MNIST"}, "take": "value"}, "must lead to one row, but leads to"),
        ({"where": {"data set": "MNIST"}, "take": "mean"}, "take must be known, but is 'mean'"),
        ({"where": {"file": "fgsm/pathmnist/FGSM_attack_pathmnist_density.dat", "what": "density"}, "take": "crossing"},
         "must fall below it, but does not"),
    ],
)  # fmt: skip
def test_rules_without_one_number_are_refused(rule, words, monkeypatch):
    monkeypatch.setattr(stored, "mapping", lambda: {("a", "b", "c"): rule})
    with pytest.raises(ValueError, match=words):
        stored.counterpart(("a", "b", "c"))


def test_a_rule_for_what_is_not_printed_or_twice_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "PUBLISHED", tmp_path)
    rule = "- key: [§5.1, MNIST, {}]\n  where: {{}}\n  take: value\n"
    for text, error in (
        (rule.format("reference densty"), NotPublishedError),
        (2 * rule.format("reference density"), ValueError),
    ):
        (tmp_path / "print_and_store.yaml").write_text(text)
        (tmp_path / "vs22.csv").write_bytes(places.HOME.joinpath("data/published/vs22.csv").read_bytes())
        (tmp_path / "g17.csv").write_bytes(places.HOME.joinpath("data/published/g17.csv").read_bytes())
        stored.mapping.cache_clear()
        with pytest.raises(error):
            stored.mapping()
    stored.mapping.cache_clear()
