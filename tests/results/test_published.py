"""What was published, and what it was worth by the measures of a comparison."""

import pytest

import maml_envs
from maml_rl.results import published
from maml_rl.results.published import Published

ROWS = [key for key, value in published._ADAPTATION.items() if value.oracle is not None]


def test_by_hand() -> None:
    known = Published("a paper", (-40.0, -10.0, -2.0), random=(-80.0, -70.0), oracle=-2.0)
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
    known = published.adaptation(env, preset, None)
    assert known is not None
    assert {len(known.of(method)) for method in ("maml", "pretrained", "random")} <= {0, 4}
    assert known.oracle is not None
    for method in ("pretrained", "random"):
        assert all(value < known.returns[1] < known.oracle for value in known.of(method)[1:2])
    gap, score = known.gap_closed(1), known.normalised(1)
    assert gap is not None
    assert score is not None
    assert 0.6 < gap < 1
    assert 0.6 < score < 1


def test_it_is_of_an_environment_its_preset_and_its_horizon() -> None:
    whole = published.adaptation("half-cheetah-vel", "finn2017", 200)
    assert whole == published.adaptation("half-cheetah-vel", "finn2017", None)
    assert whole is not None
    assert whole.of("pretrained")[1] == -135.39
    other = published.adaptation("half-cheetah-vel", "gymnasium", 200)
    assert other is not None
    assert other.source != whole.source
    assert published.adaptation("half-cheetah-vel", "finn2017", 100) is None
    assert published.adaptation("half-cheetah-vel", None, 200) is None
    assert published.adaptation("my:Env", None, None) is None


def test_it_names_families_presets_and_horizons_there_are() -> None:
    for name, preset in published._ADAPTATION:
        env = maml_envs.make(name, preset)
        assert env.horizon == published._HORIZON[name]
        env.close()
