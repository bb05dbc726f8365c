"""The table of methods has a row for every value of ``method``, and says of each what it does."""

from typing import get_args

from maml_rl.config.base import METHODS
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config


def test_every_method_has_its_row() -> None:
    assert set(get_args(Config.model_fields["method"].annotation)) == set(METHODS)
    assert set(get_args(FewShotConfig.model_fields["method"].annotation)) == set(METHODS) - {"oracle"}
    assert len({method.label for method in METHODS.values()}) == len(METHODS)


def test_what_each_method_does() -> None:
    assert {name for name, method in METHODS.items() if method.trains} == {"maml", "pretrained", "oracle"}
    assert {name for name, method in METHODS.items() if method.adapts} == {"maml"}
    assert {name for name, method in METHODS.items() if method.told} == {"oracle"}
    assert {name for name, method in METHODS.items() if method.tunes} == {"pretrained"}
