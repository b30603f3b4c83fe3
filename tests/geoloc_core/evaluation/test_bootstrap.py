"""Intervals hold what they promise of clustered rows, and paired tests are wrong as often as they say."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from geoloc_core.evaluation import bootstrap
from geoloc_core.evaluation.bootstrap import DRAWS, POOLS, Groups, Sample, difference, holm, interval


def clustered(rng, groups=40):
    """Shares of right answers in groups that are right and wrong together: group codes and (N,) 0 or 100."""
    codes = np.repeat(np.arange(groups), 1 + rng.geometric(0.15, groups))
    lean = rng.normal(0, 1, groups)[codes]
    return codes, 100.0 * (lean + rng.normal(0, 1, len(codes)) < -0.5)


NAMES = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=3))


@given(st.lists(st.lists(NAMES, max_size=6), min_size=1, max_size=4), st.booleans())
def test_groups_are_numbered_by_the_alphabet_however_their_ids_are_stored(parts, dictionaries):
    ids = [name for part in parts for name in part]
    stored = pa.chunked_array([pa.array(part, pa.string()) for part in parts])
    known = sorted(set(ids) - {None})
    alone = iter(range(len(known), len(known) + len(ids)))
    expected = [next(alone) if name is None else known.index(name) for name in ids]
    assert Groups.of_ids(stored.dictionary_encode() if dictionaries else stored).codes.tolist() == expected
    assert Groups.of_ids(ids).codes.tolist() == expected


TRUE_SHARE = 100 * stats.norm.cdf(-0.5 / np.sqrt(2))


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_promised_and_that_of_single_rows_does_not():
    rng, n = np.random.default_rng(0), 200
    held = alone = 0
    for _ in range(n):
        codes, right = clustered(rng)
        for groups in (Groups(codes), Groups(np.arange(len(codes)))):
            sample = Sample(right)
            low, high = interval(sample.draws(groups), groups, sample.told, percentage=True)
            inside = low <= TRUE_SHARE <= high
            if groups.count == 40:
                held += inside
            else:
                alone += inside
    assert 0.90 <= held / n <= 0.985
    assert alone / n < 0.75


@pytest.mark.slow
def test_the_interval_of_a_median_holds_it_too():
    rng, n, held = np.random.default_rng(1), 200, 0
    for _ in range(n):
        codes = np.repeat(np.arange(40), 1 + rng.geometric(0.15, 40))
        errors = np.exp(6 + rng.normal(0, 1, 40)[codes] + rng.normal(0, 1, len(codes)))
        groups, sample = Groups(codes), Sample(errors, "median")
        low, high = interval(sample.draws(groups), groups, sample.told)
        held += low <= np.exp(6) <= high
    assert 0.90 <= held / n <= 0.985


@pytest.mark.slow
def test_equal_models_are_told_apart_as_seldom_as_promised_and_better_ones_are():
    rng, n = np.random.default_rng(2), 300
    wrong = found = 0
    for _ in range(n):
        codes, one = clustered(rng)
        better = np.maximum(one, 100.0 * (rng.random(len(one)) < 0.4))
        swapped = rng.random(codes.max() + 1)[codes] < 0.5  # within whole groups, so that the models are equal
        a, b = np.where(swapped, one, 100 - one), np.where(swapped, 100 - one, one)
        groups = Groups(codes)
        made = [Sample(values) for values in (a, b, better, one)]
        drawn = [sample.draws(groups) for sample in made]
        wrong += difference(drawn[0], drawn[1], made[0].figure - made[1].figure, groups.count).p < 0.05
        found += difference(drawn[2], drawn[3], made[2].figure - made[3].figure, groups.count).p < 0.05
    assert 0.01 <= wrong / n <= 0.09
    assert found / n > 0.9


def plain(sample, weights):
    """The figure of weighted rows, written out."""
    kept = ~np.isnan(sample.values) & (weights > 0)
    if sample.strata is not None:
        kept &= sample.strata >= 0
    values = np.repeat(sample.values[kept], weights[kept])
    if sample.strata is None:
        return np.mean(values)
    strata = np.repeat(sample.strata[kept], weights[kept])
    parts = [values[strata == at] for at in np.unique(strata)]
    if sample.statistic == "macro":
        return np.mean([part.mean() for part in parts])
    return sum(abs(part.sum()) for part in parts) / len(values)


@pytest.mark.parametrize("statistic", ["mean", "macro", "gap"])
def test_draws_are_the_figure_of_resampled_groups(statistic):
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 12, 90)
    values = np.where(rng.random(90) < 0.1, np.nan, rng.normal(1, 1, 90))
    groups = Groups(np.unique(codes, return_inverse=True)[1])
    sample = Sample(values, statistic, None if statistic == "mean" else rng.integers(-1, 4, 90))
    assert sample.figure == pytest.approx(plain(sample, np.ones(90, int)))
    draws, weights = sample.draws(groups), groups.weights.astype(int)
    assert (weights.sum(axis=1) == groups.count).all()
    expected = np.array([plain(sample, row[groups.codes]) for row in weights[:40]])
    shift = draws[:40] - expected
    np.testing.assert_allclose(shift, shift[0], atol=1e-4)
    if statistic == "mean":
        assert abs(shift[0]) < 1e-4
    else:
        assert draws.mean() == pytest.approx(sample.figure)


def test_draws_of_a_median_are_as_wide_as_those_of_resampled_groups():
    rng = np.random.default_rng(4)
    codes = np.repeat(np.arange(80), rng.integers(1, 12, 80))
    errors = np.exp(6 + rng.normal(0, 1, 80)[codes] + rng.normal(0, 1, len(codes)))
    groups, sample = Groups(codes), Sample(errors, "median")
    assert sample.figure == np.median(errors)
    exact = [np.median(np.repeat(errors, w)) for w in groups.weights[:800].astype(int)[:, codes]]
    np.testing.assert_allclose(
        np.quantile(sample.draws(groups), [0.025, 0.5, 0.975]), np.quantile(exact, [0.025, 0.5, 0.975]), rtol=0.15
    )


def test_many_groups_are_as_sure_as_if_each_were_drawn():
    rng = np.random.default_rng(5)
    n = 3 * POOLS
    values, groups = 100.0 * (rng.random(n) < 0.3), Groups(np.arange(n))
    assert groups.weights.shape == (DRAWS, POOLS)
    assert np.bincount(groups.pools).tolist() == [3] * POOLS
    sample = Sample(values)
    low, high = interval(sample.draws(groups), groups, sample.told, percentage=True)
    reach = 1.96 * values.std() / np.sqrt(n)
    assert (low, high) == pytest.approx((sample.figure - reach, sample.figure + reach), rel=0.02)


@given(st.integers(0, 2**32), st.integers(2, 40))
def test_groups_by_their_ids_do_not_depend_on_the_order_of_rows(seed, n):
    rng = np.random.default_rng(seed)
    ids = np.array([None if i == 3 else f"g{i}" for i in rng.integers(0, 5, n)], object)
    groups = Groups.of_ids(ids)
    known = ids != np.array(None)
    assert groups.count == len(set(ids[known])) + (~known).sum(), "a row without a group is alone"
    order = rng.permutation(n)
    again = Groups.of_ids(ids[order])
    np.testing.assert_array_equal(again.codes[known[order]], groups.codes[order][known[order]])


def test_whole_groups_widen_the_interval_and_single_rows_do_not():
    values = np.repeat([0.0, 100.0], 50)
    together, apart = Groups(np.repeat(np.arange(10), 10)), Groups(np.arange(100))
    sample = Sample(values)
    assert sample.widening(apart) == pytest.approx(1)
    assert sample.widening(together) == pytest.approx(np.sqrt(10)), "ten rows are worth one"
    assert Sample(np.zeros(100)).widening(together) is None


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_groups_with_as_much_above_as_below_make_the_interval_narrow(statistic):
    balanced = Groups.of_ids(["a", "a", "b", "b", "c", "c"])
    assert Sample(np.array([1.0, 9.0, 1.0, 9.0, 1.0, 9.0]), statistic).widening(balanced) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("statistic", ["mean", "macro", "gap"])
def test_an_interval_widens_as_the_figure_follows_the_weights_of_rows(statistic):
    """The linear part of a figure is its derivative by the weight of each row, here taken by differences."""
    rng, step = np.random.default_rng(8), 1e-6
    values = np.where(rng.random(60) < 0.1, np.nan, rng.normal(1, 2, 60))
    strata = np.zeros(60, int) if statistic == "mean" else rng.integers(-1, 4, 60)
    told = ~np.isnan(values) & (strata >= 0)

    def figure(weights):
        parts = [(weights[at] @ values[at], weights[at].sum()) for at in (told & (strata == s) for s in range(4))]
        sums, sizes = np.array([part for part in parts if part[1] > 0]).T
        return np.mean(sums / sizes) if statistic == "macro" else np.abs(sums).sum() / sizes.sum()

    slopes = np.array([figure(1 + step * row) - figure(np.ones(60)) for row in np.eye(60)]) / step
    groups = Groups(np.arange(60) % 7)
    together = np.bincount(groups.codes, slopes)
    sample = Sample(values, statistic, None if statistic == "mean" else strata)
    assert sample.figure == pytest.approx(figure(np.ones(60)))
    assert sample.widening(groups) == pytest.approx(np.sqrt((together**2).sum() / (slopes**2).sum()), rel=1e-4)


def test_how_much_groups_widen_the_interval_of_a_median_by_hand():
    # two of three lie at or below the median: the rows pull by 1/3, 1/3 and -2/3
    found = Sample(np.array([1.0, 2.0, 3.0]), "median").widening(Groups(np.array([0, 0, 1])))
    assert found == pytest.approx(np.sqrt((2**2 + 2**2) / (1 + 1 + 2**2)))
    empty = Sample(np.full(3, np.nan), "median")
    assert empty.widening(Groups(np.array([0, 0, 1]))) is None


def test_rows_that_cannot_be_told_change_no_draw_of_a_median():
    rng = np.random.default_rng(10)
    values, codes = rng.normal(5, 2, 50), np.arange(50) % 5
    more = np.concatenate([values, np.full(30, np.nan)])
    many, few = Groups(np.concatenate([codes, np.arange(30) % 5])), Groups(codes)
    np.testing.assert_array_equal(Sample(more, "median").draws(many), Sample(values, "median").draws(few))


def test_sums_are_by_group_and_stratum():
    groups, values, strata = Groups(np.array([0, 1, 0, 2])), np.array([1.0, 2.0, 4.0, 8.0]), np.array([1, 2, 1, 0])
    assert groups.sums(values).tolist() == [[5], [2], [8]]
    assert groups.sums(values, strata, 3).tolist() == [[0, 5, 0], [0, 0, 2], [8, 0, 0]]


def test_what_groups_are_worth_by_hand():
    groups = Groups(np.array([0, 1, 1, 1, 2, 2]))
    assert groups.largest() == 3
    assert groups.effective(np.ones(6, bool)) == (3, 6**2 / (1 + 9 + 4))
    assert groups.effective(np.array([1, 0, 0, 0, 1, 1], bool)) == (2, 3**2 / (1 + 4)), "a group of which none counts"
    assert groups.effective(np.zeros(6, bool)) == (0, 0)
    nobody = Groups.of_ids([])
    assert (nobody.count, nobody.largest(), nobody.effective(np.zeros(0, bool))) == (0, 0, (0, 0))


@pytest.mark.parametrize("rows", [[5, 2, 3], [1], [], [0, 1, 2, 3, 4, 5]])
def test_groups_of_some_rows_are_numbered_anew_in_the_same_order(rows):
    codes = np.array([2, 0, 2, 3, 1, 0])
    taken = Groups(codes).take(np.array(rows, int))
    kept = sorted({codes[row] for row in rows})
    assert taken.codes.tolist() == [kept.index(codes[row]) for row in rows]
    assert taken.count == len(kept)


def test_of_few_groups_percentiles_lie_further_out_and_no_figure_beyond_what_it_can_be():
    """Hesterberg 2015, section 5.3.2: with ten groups 0.86 % on each side instead of 2.5 %."""
    groups, told, even = Groups(np.arange(10)), np.ones(10, bool), np.linspace(10, 90, 2001)
    low, high = interval(even, groups, told, percentage=True)
    assert (low, high) == pytest.approx((10 + 80 * 0.0086, 90 - 80 * 0.0086), abs=0.01)
    wide = np.linspace(-50, 150, 2001)
    assert interval(wide, groups, told, percentage=True) == (0, 100)
    assert interval(wide, groups, told) == pytest.approx((0, 150 - 200 * 0.0086), abs=0.02)


def test_where_no_draw_differs_only_none_and_all_of_a_share_are_unsure():
    groups, told = Groups(np.arange(10)), np.ones(10, bool)
    assert interval(np.full(DRAWS, 50.0), groups, told, percentage=True) == (50, 50)
    for value in (0.0, 100.0):
        assert interval(np.full(DRAWS, value), groups, told) == (value, value), "kilometres or points"


def test_nothing_right_is_not_known_to_be_nothing():
    groups, none = Groups(np.arange(50)), Sample(np.zeros(50))
    low, high = interval(none.draws(groups), groups, none.told, percentage=True)
    assert low == 0
    assert high == pytest.approx(100 * (1 - 0.025 ** (1 / 50))), "Clopper and Pearson"
    every = Sample(np.full(50, 100.0))
    assert interval(every.draws(groups), groups, every.told, percentage=True) == pytest.approx((100 - high, 100))


def test_of_two_groups_there_is_an_interval():
    two = Groups(np.array([0, 0, 1]))
    sample = Sample(np.array([1.0, 2.0, 6.0]))
    assert interval(sample.draws(two), two, sample.told) == pytest.approx((1.5, 6)), "either group alone"
    assert difference(sample.draws(two), np.zeros(DRAWS), 3.0, 2).p is not None


def test_of_one_group_or_no_row_nobody_can_tell():
    one = Groups(np.zeros(5, int))
    sample = Sample(np.arange(5.0))
    assert interval(sample.draws(one), one, sample.told) is None
    nothing = Sample(np.full(5, np.nan))
    assert np.isnan(nothing.figure)
    assert np.isnan(nothing.draws(one)).all()
    assert interval(nothing.draws(one), one, nothing.told) is None
    assert difference(sample.draws(one), sample.draws(one), 0.0, one.count).p is None


def test_a_difference_has_no_more_than_its_own_uncertainty():
    rng = np.random.default_rng(6)
    codes, right = clustered(rng)
    groups = Groups(codes)
    better = np.where(rng.random(len(right)) < 0.1, 100.0, right)
    one, other = (Sample(values) for values in (better, right))
    found = difference(one.draws(groups), other.draws(groups), one.figure - other.figure, groups.count)
    low, high = interval(other.draws(groups), groups, other.told, percentage=True)
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < (high - low) / 2
    same = difference(other.draws(groups), other.draws(groups), 0.0, groups.count)
    assert (same.low, same.high, same.p) == (0, 0, 1)
    always = difference(np.full(DRAWS, 5.0), np.zeros(DRAWS), 5.0, 4)
    assert always.p == 2**-3, "of four groups, all signs alike"


@pytest.mark.parametrize("compared", [1, 4])
@pytest.mark.parametrize("value", [1.5, -1.5])
def test_a_difference_has_the_interval_and_the_p_value_of_a_t_test(value, compared):
    """The standard error of n groups, which the bootstrap makes too small by the root of (n - 1) / n."""
    n, draws = 6, np.random.default_rng(9).normal(value, 0.7, DRAWS)
    found = difference(draws + 3, np.full(DRAWS, 3.0), value, n, compared)
    error = np.std(draws, ddof=1) * np.sqrt(n / (n - 1))
    reach = stats.t.ppf(1 - 0.025 / compared, n - 1) * error
    assert (found.value, found.low, found.high) == pytest.approx((value, value - reach, value + reach))
    assert found.p == pytest.approx(2 * stats.t.sf(1.5 / error, n - 1)), "not corrected here"


def test_draws_that_nobody_can_tell_count_in_no_difference():
    known, unknown = np.array([1.0, 2.0, 4.0]), np.array([np.nan, 7.0])
    one, other = np.concatenate([known, unknown]), np.array([0.0, 0.0, 0.0, 5.0, np.nan])
    assert difference(one, other, 2.0, 5) == difference(known, np.zeros(3), 2.0, 5)
    assert difference(unknown[:1], other[:1], 2.0, 5).p is None
    assert difference(known, np.zeros(3), 2.0, 1).low is None


def test_holm_corrects_for_how_many_were_compared():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_same_rows_are_drawn_for_every_model():
    one, other = Groups.of_ids(["b", "a", "b"]), Groups.of_ids(["b", "a", "b"])
    np.testing.assert_array_equal(one.weights, other.weights)
    assert bootstrap.SEED == 1979
