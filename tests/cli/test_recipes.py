# SPDX-License-Identifier: Apache-2.0
"""Each recipe in `examples/training` makes the model, the strategy and the trainer that it says it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pcvideo.cli import train
from pcvideo.cli._train_model import trained_model, with_published_loss
from pcvideo.cli.main import build_parser
from pcvideo.training import Adversarial, SelfFeeding, Trainer

RECIPES = Path(__file__).resolve().parents[2] / "examples" / "training"
PIXEL_STAGES = ("mspn-kth", "mspn-human36m", "mspn-caltech", "mspn-kitti")


def trainer_of(tmp_path: Path, *recipes: str) -> tuple[Trainer, dict[str, Any]]:
    """The trainer, on the device that has no memory, and all settings."""
    files = [str(RECIPES / f"{name}.toml") for name in recipes]
    arguments = build_parser().parse_args(["train", "--config", *files, "--run-dir", str(tmp_path), "--device", "meta"])
    with torch.device("meta"):
        model, settings = trained_model(train._settings(arguments))
        settings = with_published_loss(settings, model)
        return train._trainer(model, settings, torch.device("meta"), []), settings


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_each_recipe_makes_a_trainer(path: Path, tmp_path: Path) -> None:
    recipes = ("mspn-kth", path.stem) if path.stem == "mspn-adversarial-stage" else (path.stem,)
    trainer, _ = trainer_of(tmp_path, *recipes)
    assert trainer.strategy.context == trainer.strategy.horizon == 10
    # Its own words of how to call it name it.
    assert f"--config examples/training/{path.name}" in path.read_text() or len(recipes) == 2


@pytest.mark.parametrize(
    ("recipe", "parameters", "batch", "rate", "decay", "epochs"),
    [
        # The published counts less what no step uses; the rest is Table 7 of the method's description.
        *((name, 110_840_140, 3, 1e-5, 1e-5, 40) for name in PIXEL_STAGES),
        ("mspn-moving-mnist-published", 26_731_043, 3, 1e-5, 1e-5, 40),
        ("ppnv2-published", 163_082_628, 1, 5e-5, 1e-5, 50),
    ],
)
def test_published_regimes_have_the_published_numbers(
    recipe: str, parameters: int, batch: int, rate: float, decay: float, epochs: int, tmp_path: Path
) -> None:
    trainer, settings = trainer_of(tmp_path, recipe)
    assert sum(parameter.numel() for parameter in trainer.model.parameters()) == parameters
    assert trainer.settings["batch_size"] == batch
    assert (trainer.settings["lr"], trainer.settings["weight_decay"]) == (rate, decay)
    assert (trainer.settings["schedule"], trainer.settings["clip_norm"]) == ("constant", None)
    assert settings["epochs"] == epochs
    assert isinstance(trainer.strategy, SelfFeeding)
    # MSPN's loss is added up over the batch, PPNV2's divided by it.
    assert trainer.strategy.reduction == ("sum" if recipe.startswith("mspn") else "mean")


@pytest.mark.parametrize(
    ("stage", "parameters"),
    # 512 * 4 * 5 * 1024 weights in place of 512 * 4 * 4 * 1024, and so on.
    [("mspn-human36m", 14_812_609), ("mspn-caltech", 16_909_761), ("mspn-kth", 12_715_457)],
)
def test_the_adversarial_stage_has_the_published_discriminator_for_the_data_of_its_pixel_stage(
    stage: str, parameters: int, tmp_path: Path
) -> None:
    trainer, _ = trainer_of(tmp_path, stage, "mspn-adversarial-stage")
    strategy = trainer.strategy
    assert isinstance(strategy, Adversarial)
    assert sum(parameter.numel() for parameter in strategy.discriminator.parameters()) == parameters
    rates = {group["factor"] * trainer.settings["lr"] for group in trainer.optimizer.param_groups}
    assert sorted(rates) == pytest.approx([1e-7, 1e-5])
    assert (trainer.settings["batch_size"], trainer.settings["weight_decay"]) == (1, 1e-4)
    assert (strategy.adversarial_weight, strategy.judge_from) == (100, 5)
    assert strategy.turns.max_phase_steps is None  # type: ignore[union-attr]
