"""VS22 §5.3: mixtures against brute force and their straight line, power against truth, verdicts by definition."""

from dataclasses import replace

import numpy as np
import pandas
import pytest
import recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import cdist

from advlib.prdc import ReferenceManifold, expected_coverage
from compendium import nb08_admixture
from compendium.claims import published
from compendium.common import vs22
from compendium.nb08_admixture import experiment, figures, judge, mixtures, power
from compendium.nb08_admixture.experiment import Admixture

RNG = np.random.default_rng(0)
REFERENCE = RNG.random((120, 6))
CLEAN = RNG.random((60, 6))
MANIFOLD = ReferenceManifold(5).fit(REFERENCE)


@given(st.integers(1, 50), st.floats(0, 1), st.booleans())
@settings(max_examples=80)
def test_a_mixture_has_its_size_and_share(n, share, twins):
    clean, attacked = mixtures.mixed_rows(n, share, np.random.default_rng(0), twins=twins)
    assert len(clean) + len(attacked) == n and len(attacked) == round(share * n)
    assert len(set(clean)) == len(clean) and len(set(attacked)) == len(attacked)
    if twins:
        assert sorted([*clean, *attacked]) == list(range(n))


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\]"):
        mixtures.mixed_rows(5, share, RNG)


def brute(queries):
    radii = np.sort(cdist(REFERENCE, REFERENCE), axis=1)[:, 5]
    inside = cdist(queries, REFERENCE) < radii
    return inside.sum() / (5 * len(queries)), inside.any(0).mean()


@pytest.mark.parametrize("twins", [True, False])
def test_a_mixture_equals_brute_force(twins):
    moved = [CLEAN, CLEAN * 0.5 + 0.25, CLEAN + 0.4]
    found = mixtures.mixture(MANIFOLD, CLEAN, moved, [0, 1, 2], np.random.default_rng(1), twins=twins)
    again = np.random.default_rng(1)
    rows = [mixtures.mixed_rows(60, share, again, twins=twins) for share in mixtures.SHARES]
    for i, attacked in enumerate(moved):
        for s, (untouched, replaced) in enumerate(rows):
            expected = brute(np.concatenate([CLEAN[untouched], attacked[replaced]]))
            assert (found.density[i, s], found.coverage[i, s]) == pytest.approx(expected)
        assert (found.density[i, -1], found.coverage[i, -1]) == pytest.approx(brute(attacked))
        assert (found.density[i, 0], found.coverage[i, 0]) == pytest.approx(brute(CLEAN))
    assert (found.n_reference, found.n_queries) == (120, 60)
    frame = found.frame()
    assert list(frame.columns) == ["x", "share", "density", "coverage", "line"] and len(frame) == 15
    assert frame.set_index(["x", "share"]).loc[(1, 0.5), "coverage"] == found.coverage[1, 2]


def test_density_lies_on_a_line_in_the_mean():
    moved = CLEAN * 0.5 + 0.25
    runs = [mixtures.mixture(MANIFOLD, CLEAN, [moved], [1], np.random.default_rng(seed)) for seed in range(60)]
    density = np.array([run.density[0] for run in runs])
    error = density.std(0, ddof=1) / np.sqrt(len(runs))
    assert (np.abs(density.mean(0) - runs[0].line[0]) <= 4 * error + 1e-12).all()
    assert runs[0].line[0, -1] > 1.5 * runs[0].line[0, 0]  # a line that goes somewhere


def test_independent_parts_cover_less_already_without_an_attack():
    """The stored files' way: with 50 % drawn independently of the rest, a quarter of the images is there twice."""
    found = [mixtures.mixture(MANIFOLD, CLEAN, [CLEAN], [0], np.random.default_rng(s), twins=False) for s in range(30)]
    coverage = np.mean([f.coverage[0] for f in found], axis=0)
    assert coverage[2] < coverage[0] - 0.05
    distinct = np.array([60, 60 * 0.8125, 60 * 0.75, 60 * 0.8125, 60])
    expected = [expected_coverage(120, round(n), 5) for n in distinct]
    np.testing.assert_allclose(coverage / coverage[0], np.array(expected) / expected[0], atol=0.04)
    twins = mixtures.mixture(MANIFOLD, CLEAN, [CLEAN], [0], RNG)
    assert len(set(twins.coverage[0])) == 1


def mapped(manifold, moved, rows, shares, sizes, draws, rng):
    hits = manifold.hits(CLEAN)
    null = power.clean_batches(manifold, hits, sizes, rng)
    return power.power_map(manifold, hits, manifold.hits(moved), rows, shares, sizes, null, draws, rng)


def power_against(moved, shares=(0, 0.1, 0.5, 1), sizes=(10, 30), draws=200, rows=None):
    rows = np.arange(len(CLEAN)) if rows is None else rows
    return mapped(MANIFOLD, moved, rows, shares, sizes, draws, np.random.default_rng(0))


def test_power_is_the_false_alarm_rate_without_attack_and_one_for_a_gross_one():
    gross = power_against(CLEAN + 5)
    for statistic in ("density", "coverage"):
        # 200 batches at 5 %: two binomial samples' four standard deviations.
        assert (gross[statistic].iloc[0] <= 0.05 + 4 * np.sqrt(2 * 0.05 * 0.95 / 200)).all()
        assert (gross[statistic].iloc[-1] == 1).all()
        assert gross[statistic].iloc[1, 0] < gross[statistic].iloc[2, 0] + 1e-9
        assert power.smallest_share(gross[statistic, 30]) in (0.1, 0.5)
    nothing = power_against(CLEAN)
    assert nothing.max(axis=None) < 0.2
    assert power.smallest_share(nothing["density", 30]) is None


def test_power_is_two_sided():
    """Images moved to the middle lie in more balls, those moved away in none: both are suspect."""
    inward, outward = CLEAN * 0.2 + 0.4, CLEAN + 5
    assert MANIFOLD.density(inward) > 1.5 * MANIFOLD.density(CLEAN) and MANIFOLD.density(outward) == 0
    for moved in (inward, outward):
        assert power_against(moved, shares=[0, 1])["density"].iloc[1, 1] == 1


def test_cells_without_enough_attacked_images_stay_empty():
    found = power_against(CLEAN[:8] + 5, sizes=(10, 30, 70), rows=np.arange(8))
    known = found["density"].notna().to_numpy()
    assert known[:3, 0].all() and not known[3, 0]
    assert not known[2:, 1].any()
    assert not known[:, 2].any()  # more than there are clean images
    assert power.smallest_share(found["density", 10]) == 0.5
    # At 30 images only a share of 10 % could be drawn: batches of 10 are the largest in which half can be attacked.
    assert judge.detected_from(found) == 0.5
    assert judge.detected_from(power_against(CLEAN[:2] + 5, shares=(0, 0.5), rows=np.arange(2))) is None
    frame = judge.detectable([Admixture(vs22.SETS["mnist"], {}, {"corrected": {"": found}})])
    assert list(frame.loc[("MNIST", "", "density")]) == ["50%", "> 10%", "–"]


def test_no_batch_holds_an_image_both_clean_and_attacked(monkeypatch):
    seen = []
    original = MANIFOLD.subset_density_coverage

    def watch(hits, batches):
        batches = list(batches)
        seen.extend(batches)
        return original(hits, batches)

    monkeypatch.setattr(MANIFOLD, "subset_density_coverage", watch)
    rows = np.array([3, 9, 20, 41])
    mapped(MANIFOLD, CLEAN[rows], rows, [0, 0.4], [10], 20, RNG)
    mixed = [batch for batch in seen if (batch >= 60).any()]
    assert len(mixed) == 20
    for batch in mixed:
        clean, attacked = batch[batch < 60], rows[batch[batch >= 60] - 60]
        assert len(attacked) == 4 and len(batch) == 10 and not set(clean) & set(attacked)


def test_false_alarms_keep_to_five_percent_however_few_batches_are_judged():
    """The threshold comes from many clean batches, so it is exact also where few are judged."""
    rates = [
        mapped(MANIFOLD, CLEAN, np.arange(60), [0], [10], 40, np.random.default_rng(s))["density"].iloc[0, 0]
        for s in range(40)
    ]
    # 1,600 batches, and thresholds from 2,000 each: four standard errors.
    assert abs(np.mean(rates) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 1600 + 0.05 * 0.95 / (40 * 2000))


def test_clean_batches_are_shared_and_none_is_larger_than_the_images():
    hits = MANIFOLD.hits(CLEAN)
    null = power.clean_batches(MANIFOLD, hits, [10, 70], np.random.default_rng(0), draws=40)
    assert list(null) == [10] and [len(values) for values in null[10]] == [40, 40]
    args = (MANIFOLD, hits, MANIFOLD.hits(CLEAN + 5), np.arange(60), [0, 1], [10, 70], null, 40)
    found = power.power_map(*args, np.random.default_rng(1))["density"]
    assert found.loc[1, 10] == 1 and found[70].isna().all()


def test_too_few_draws_are_refused():
    with pytest.raises(ValueError, match="draws must be at least 20"):
        power_against(CLEAN, draws=19)


def test_a_share_counts_only_if_power_stays():
    shares = [0, 0.1, 0.3, 0.5]
    density, coverage = (pandas.Series(values, shares) for values in ([0.05, 0.9, 0.3, 0.9], [0.05, np.nan, 0.9, 1.0]))
    assert power.smallest_share(density) == 0.5
    assert power.smallest_share(coverage) == 0.3
    assert power.smallest_share(density, level=0.2) == 0.1


def test_printed_densities_give_back_their_shares_but_for_one():
    frame = mixtures.printed_shares()["by its 75 % entry"].astype(float)
    for title in ("MNIST", "PathMNIST", "OrganMNIST"):
        assert frame[title, 0.0] == 0 and frame[title, 0.75] == 0.75
    printed = [published.value("vs22", "Table 4", "MNIST", f"share={s:g}") for s in (0, 0.5, 0.75)]
    assert frame["MNIST", 0.5] == pytest.approx((printed[1] - printed[0]) / (printed[2] - printed[0]) * 0.75, abs=5e-4)
    assert abs(frame["MNIST", 0.5] - 0.5) < 0.02 and abs(frame["OrganMNIST", 0.5] - 0.5) < 0.02
    assert frame["PathMNIST", 0.5] < 0.46


def few(name, references=None, queries=0, rng=None, whole=vs22.reference_and_holdout):
    """Few references, and half as many queries, of which none is drawn."""
    split = whole(name, 400, 40)
    return replace(split, image_set=replace(split.image_set, references=0))


def toy_mixture(values):
    values = np.array(values, float)[None]
    return mixtures.Mixture(np.ones(1), values, values, 100, 50)


def test_the_smallest_step_is_a_share_of_the_way():
    assert judge.least_step(toy_mixture([1, 0.8, 0.6, 0.4, 0.2]), "density") == pytest.approx(0.25)
    assert judge.least_step(toy_mixture([1, 2, 3, 4.5, 5]), "density") == pytest.approx(0.125)
    assert judge.least_step(toy_mixture([1, 0.4, 0.9, 0.4, 0.2]), "density") == pytest.approx(-0.625)
    assert judge.least_step(toy_mixture([1, 0.9, 1.0, 0.95, 0.99]), "density") is None  # too small a way to judge


def test_four_sizes_are_looked_at():
    assert judge.looked_at(np.linspace(0, 1, 21)).tolist() == [5, 10, 15, 20]
    assert judge.looked_at(np.array([0.3])).tolist() == [0]


def result_of(fgsm, walked=None, in_paper=True, mix=(1.0, 0.8, 0.6, 0.4, 0.2)):
    """Results whose maps have these powers at 25 % and 100 %, at one size; density and coverage alike."""
    chosen = vs22.SETS["mnist" if in_paper else "bloodmnist"]
    columns = pandas.MultiIndex.from_product([mixtures.TABLES, [50]])

    def found(powers):
        return pandas.DataFrame([[power] * 2 for power in (0.05, *powers)], [0, 0.25, 1], columns)

    maps = {"FGSM, ε = 0.1": found(fgsm), "boundary attack, 7 steps": found(walked or fgsm)}
    names = [mode.name for mode in vs22.MODES]
    mixed = dict.fromkeys(names, toy_mixture(mix))
    return Admixture(chosen, mixed, dict.fromkeys(names, maps), mixed, (1.1, 0.15), 7)


def recorded_of(*results):
    run = recorded.Recorder()
    judge.record_admixture(run, results)
    return run


def test_every_sentence_and_both_tables_are_recorded():
    run = recorded_of(result_of((0.9, 1.0)))
    assert run.sentences() == recorded.criteria_of("08_admixture")
    assert {run.says(row) for row in run.sentences()} == {"agrees"}
    assert run.ours("Table 4", "MNIST", "share=0.25") == (0.8, 0.8)
    assert run.ours("Table 4", "MNIST", "share=0") == (1.1, 1.1)
    assert run.ours("Table 5", "MNIST", "share=0") == (0.15, 0.15)
    assert run.ours("§6", "all", "smallest share flagged") == (0.25, 0.25)
    assert len([key for key in run.comparisons if key[1].startswith("Table")]) == 8


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({"fgsm": (0.5, 1.0), "walked": (0.9, 1)}, {"admixture-25-percent-flagged", "admixture-25-percent-diverges"}),
        ({"fgsm": (0.9, 1.0), "walked": (0.5, 1)}, {"boundary-admixture-told-apart"}),
        ({"fgsm": (0.9, 1.0), "walked": (0.9, 0.7)}, {"both-attacks-detected"}),
        ({"fgsm": (0.9, 0.7), "walked": (0.9, 1)}, {"both-attacks-detected"}),
        ({"fgsm": (0.9, 1.0), "mix": (1, 1.1, 0.6, 0.4, 0.2)}, {"admixture-progressive"}),
    ],
)
def test_each_sentence_follows_what_was_measured(changes, fails):
    run = recorded_of(result_of((0.9, 1.0)), result_of(**changes))
    assert {row for row in run.sentences() if run.says(row) == "disagrees"} == fails


def test_never_is_a_share_too_and_a_set_that_is_not_the_papers_does_not_count():
    assert recorded_of(result_of((0.1, 0.2))).ours("§6", "all", "smallest share flagged") == ("never", "never")
    run = recorded_of(result_of((0.9, 1)), result_of((0.1, 0.2), in_paper=False))
    assert run.ours("§6", "all", "smallest share flagged") == (0.25, 0.25)
    assert not [key for key in run.comparisons if key[2] == "BloodMNIST"]
    assert any("BloodMNIST" in name for name in run.metrics)


def test_without_the_boundary_attack_its_sentences_are_left_out():
    whole = result_of((0.9, 1.0))
    maps = {name: {"FGSM, ε = 0.1": found["FGSM, ε = 0.1"]} for name, found in whole.maps.items()}
    run = recorded.Recorder()
    judge.record_sentences(run, [Admixture(whole.image_set, whole.fgsm, maps)])
    assert recorded.criteria_of("08_admixture") - run.sentences() == {
        "boundary-admixture-told-apart", "both-attacks-detected"
    }  # fmt: skip


@pytest.mark.data
def test_replicate_keeps_what_the_seed_does_not_change(monkeypatch):
    calls = []
    sweep = vs22.fgsm_sweep
    monkeypatch.setattr(vs22, "fgsm_sweep", lambda *a: calls.append(a) or sweep(*a))
    monkeypatch.setattr(power, "CLEAN_BATCHES", 100)
    monkeypatch.setattr(vs22, "reference_and_holdout", few)
    monkeypatch.setattr(vs22, "references_for", lambda image_set, queries, available, holdout: available)
    experiment._balls.cache.clear()
    experiment._fgsm_balls.cache.clear()
    parameters = {"queries": 0, "fgsm_sizes": 3, "map_epsilons": [0.3], "mixed_shares": [0, 0.25, 1]}
    for seed in (0, 1):
        run = recorded.Recorder(seed=seed, mixed_sizes=[10, 20], mixed_draws=20, **parameters)
        nb08_admixture.replicate(run)
        assert len(run.comparisons) == 4
        assert len(calls) == 8  # two sets, two modes; once for the mixtures, once for the maps


def test_detectable_names_the_share_or_never():
    frame = judge.detectable([result_of((0.9, 1.0))])
    assert set(frame["m = 50"]) == {"25%"}
    assert set(judge.detectable([result_of((0.1, 0.2))])["m = 50"]) == {"never"}


def test_hits_are_stacked_in_order():
    hits = MANIFOLD.hits(CLEAN)
    both = sparse.vstack([hits, hits], format="csr")
    assert MANIFOLD.subset_density_coverage(both, [np.arange(60)]) == MANIFOLD.subset_density_coverage(
        both, [np.arange(60, 120)]
    )


def test_power_is_drawn_for_the_sizes_asked_for():
    figure = figures.power_curves([result_of((0.9, 1.0))], vs22.CORRECTED, [50])
    (axis,) = figure.axes
    assert axis.get_title() == "50 images a batch\nMNIST" and "power" in axis.get_ylabel()
