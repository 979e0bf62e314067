# SPDX-License-Identifier: Apache-2.0
"""What is trained, and how fast: frozen parts, and learning rates of parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_helpers import InTurn
from training_helpers import Clips, self_feeding, tiny_model, tiny_trainer

from pcvideo.training import SelfFeeding


def two_levels(**options: Any) -> Any:
    return tiny_model(levels=2, channels=(4, 8, 8), **options)


class Unfreezing(SelfFeeding):
    """A strategy that trains all of the model in each step."""

    def begin(self, step: int) -> None:
        self.model.requires_grad_(True)


@pytest.mark.parametrize("pattern", ["cells.1.*", "cells.1"])
def test_frozen_parts_and_their_running_statistics_stay_as_they_are_whatever_a_strategy_sets(
    pattern: str, tmp_path: Path
) -> None:
    model = two_levels(norm="batch")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = tiny_trainer(
        tmp_path,
        Unfreezing(context=2, horizon=2),
        model=model,
        steps=3,
        freeze=[pattern],
        optimizer="adamw",
        weight_decay=0.1,
    )
    trainer.fit(Clips(), Clips(3))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[1] for name in changed} == {"0"}
    assert any("running_mean" in name for name in changed)
    assert not any(name.startswith("cells.1") for name in model.state_dict() if name in changed)


def test_a_part_moves_by_its_share_of_the_learning_rate(tmp_path: Path) -> None:
    def moved(**options: Any) -> dict[str, torch.Tensor]:
        model = two_levels()
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        tiny_trainer(tmp_path / str(options), model=model, steps=1, **options).fit(Clips())
        return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}

    plain, other = moved(), moved(rates={"cells.1.codec.*": 0.5, "cells.1": 0.25})
    for name, change in plain.items():
        factor = 0.5 if name.startswith("cells.1.codec.") else 0.25 if name.startswith("cells.1.") else 1.0
        torch.testing.assert_close(other[name], factor * change, rtol=1e-3, atol=1e-7)


def test_the_strategy_rates_hold_where_the_trainer_says_nothing_else(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, InTurn(), steps=2, lr=0.01, schedule="constant", rates={"*": 0.1})
    trainer.fit(Clips())
    rates = {round(group["lr"], 9): len(group["params"]) for group in trainer.optimizer.param_groups}
    assert rates == {
        0.001: len(list(trainer.model.parameters())),
        0.005: len(list(trainer.strategy.critic.parameters())),
    }


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"freeze": ["cell.0.*"]}, ValueError, r"freeze has the pattern 'cell\.0\.\*', .*near it: .*'cells\.0"),
        ({"freeze": "cells.0.*"}, TypeError, "freeze must be patterns"),
        ({"freeze": ["*"]}, ValueError, "leaves no parameter of the model to train"),
        ({"rates": {"head": 0.1}}, ValueError, "rates has the pattern 'head', which no parameter fits"),
        ({"rates": {"cells.0.*": -1}}, ValueError, r"rates\['cells\.0\.\*'\] must be"),
        ({"rates": ["cells.0.*"]}, TypeError, "rates must map patterns to factors"),
    ],
)
def test_patterns_that_mean_nothing_are_told_with_near_names(
    options: dict[str, Any], error: type, message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        tiny_trainer(tmp_path, self_feeding(), **options)


def test_what_rested_in_the_last_step_is_trained_by_the_next_trainer(tmp_path: Path) -> None:
    model = two_levels()
    # The second step is the critic's.
    tiny_trainer(tmp_path / "first", InTurn(), model=model, steps=2).fit(Clips())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    tiny_trainer(tmp_path / "second", model=model, steps=1).fit(Clips())
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
