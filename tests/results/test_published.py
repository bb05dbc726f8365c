"""What was published, and what it was worth by the measures of a comparison."""

import pytest

import maml_envs
from maml_rl.results import published
from maml_rl.results.published import Published

ROWS = [(entry.subject["env"], entry.subject["preset"]) for entry in published.entries() if entry.result.oracle]
NOW = {
    ("navigation", "finn2017"): ((-40.41, -11.68, -3.33, -3.23), (), (-82.66, -57.96, -53.84, -46.81), -2.29),
    ("half-cheetah-vel", "finn2017"): (
        (-129.53, -78.57, -66.62, -60.78), (-158.0, -135.39, -128.47, -133.61), (-254.83, -254.33, -246.79, -230.83),
        -54.47,
    ),
    ("half-cheetah-dir", "finn2017"): (
        (-50.69, 293.19, 313.48, 315.65), (-43.03, -24.75, -12.85, 19.57), (-35.73, 21.83, 62.32, 86.18), 442.69
    ),
    ("ant-vel", "finn2017"): (
        (30.58, 96.74, 100.06, 101.41), (-1.83, 6.11, 8.47, 9.47), (-78.64, -62.81, -48.55, -35.56), 107.89
    ),
    ("ant-dir", "finn2017"): (
        (8.66, 499.15, 500.68, 499.11), (3.16, 1.27, 6.51, 6.86), (3.11, 9.25, 15.96, 26.11), 524.80
    ),
    ("half-cheetah-vel", "gymnasium"): ((-198.0, -140.0), (), (), None),
    ("half-cheetah-dir", "gymnasium"): ((-42.0, 364.0), (), (), None),
    ("ant-dir", "gymnasium"): ((127.0, 501.0), (), (), None),
    ("ant-goal", "gymnasium"): ((-549.0, -402.0), (), (), None),
    ("humanoid-dir", "gymnasium"): ((193.0, 203.0), (), (), None),
    ("walker-rand-params", "gymnasium"): ((446.0, 468.0), (), (), None),
}  # fmt: skip
"""MAML, pretrained, random and the oracle: what the file has of meta-RL."""


OTHERS = {
    ("half-cheetah-vel", "gymnasium"): [-34.6, -32.4],
    ("half-cheetah-dir", "gymnasium"): [980.0, 1899.0],
    ("ant-dir", "gymnasium"): [129.0, 708.0, 1035.0],
    ("ant-goal", "gymnasium"): [-460.0, -523.0, -195.0],
    ("humanoid-dir", "gymnasium"): [513.0, 273.0, 872.0],
    ("walker-rand-params", "gymnasium"): [343.0, 514.0, 720.0],
}
"""RL2 and PEARL; before them ProMP, but of half-cheetah."""


def test_the_file_has_the_numbers_of_the_papers() -> None:
    for (env, preset), (maml, pretrained, random, oracle) in NOW.items():
        finn = "Finn et al. 2017, in MuJoCo 1.3" if env.startswith("ant") else "Finn et al. 2017"
        source = finn if preset == "finn2017" else "PEARL's MAML runs, training, action_scale 1"
        level = () if oracle is None else (oracle,)
        found = published.find(env=env, preset=preset, horizon=None)
        assert found is not None
        assert found[:-1] == (source, maml, pretrained, random, level)
        assert [value for _, value in found.others] == OTHERS.get((env, preset), [])
    assert len(published.entries()) == len(NOW) + 1
    few = published.find(data="sinusoid", shots=5, measure="error")
    assert few is not None
    assert few.source == "Finn et al. 2017"
    assert {k: value for k, value in enumerate(few.maml) if value == value} == {1: 0.67, 5: 0.38, 10: 0.35}
    assert (few.pretrained, few.random, few.oracle) == ((), (), ())


@pytest.mark.parametrize("other", [{"shots": 10}, {"data": "omniglot"}, {"measure": "accuracy"}, {"shots": None}])
def test_few_shot_results_are_of_data_shots_and_a_measure(other: dict[str, object]) -> None:
    assert published.find(**{"data": "sinusoid", "shots": 5, "measure": "error"} | other) is None


def test_by_hand() -> None:
    known = Published("a paper", (-40.0, -10.0, -2.0), random=(-80.0, -70.0), oracle=(-2.0,))
    assert known.gap_closed(1) == pytest.approx(30 / 38)
    assert known.gap_closed(2) == 1
    assert known.normalised(0) == pytest.approx(40 / 78)
    assert known.normalised(1) == pytest.approx(60 / 68)  # random took a step too
    assert [known.gap_closed(0), known.gap_closed(3), known.normalised(2)] == [None] * 3
    assert [known.of(method) for method in ("maml", "pretrained", "random", "oracle")] == [
        (-40, -10, -2),
        (),
        (-80, -70),
        (-2,),
    ]


def test_what_was_not_published_says_nothing() -> None:
    known = Published("a paper", (0.0, 1.0))
    assert [known.gap_closed(1), known.normalised(0), known.normalised(1)] == [None] * 3
    assert known.of("oracle") == ()


@pytest.mark.parametrize(("env", "preset"), ROWS)
def test_the_papers_rows_hold_together(env: str, preset: str) -> None:
    """MAML is above the baselines after one step and below the oracle; four returns of each that has any."""
    known = published.find(env=env, preset=preset, horizon=None)
    assert known is not None
    assert {len(known.of(method)) for method in ("maml", "pretrained", "random")} <= {0, 4}
    for method in ("pretrained", "random"):
        assert all(value < known.maml[1] < known.oracle[0] for value in known.of(method)[1:2])
    gap, score = known.gap_closed(1), known.normalised(1)
    assert gap is not None
    assert score is not None
    assert 0.6 < gap < 1
    assert 0.6 < score < 1


def find(env: str, preset: str | None, horizon: int | None) -> Published | None:
    return published.find(env=env, preset=preset, horizon=horizon)


def test_it_is_of_an_environment_its_preset_and_its_horizon() -> None:
    whole = find("half-cheetah-vel", "finn2017", 200)
    assert whole == find("half-cheetah-vel", "finn2017", None)
    assert whole is not None
    assert whole.of("pretrained")[1] == -135.39
    other = find("half-cheetah-vel", "gymnasium", 200)
    assert other is not None
    assert other.source != whole.source
    assert find("half-cheetah-vel", "finn2017", 100) is None
    assert find("half-cheetah-vel", None, 200) is None
    assert find("my:Env", None, None) is None


def test_it_names_families_presets_and_horizons_there_are() -> None:
    for subject in (entry.subject for entry in published.entries() if "env" in entry.subject):
        env = maml_envs.make(subject["env"], subject["preset"])
        assert env.horizon == subject["horizon"]
        env.close()
