# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pcvideo.data import Compose, CubeSymmetry, TimeReverse, VoxelScenes, generate_scenes
from pcvideo.losses import VolumeLoss, WassersteinScoreLoss
from pcvideo.models import AEncGAN3D, ConvLSTMPredictor
from pcvideo.training import Alternating, ConditionalAdversarial, SelfFeeding, TeacherForced, Trainer, newest_checkpoint

TINY = {"hidden_channels": (4,), "kernel_sizes": (1,), "head_kernel_size": 1, "patch": 2, "batch_norm": False}
GAN = {"size": (4, 4, 4), "width": 8, "code_channels": 4, "dropout": 0.0}


def scenes() -> VoxelScenes:
    made = generate_scenes(4, frames=20, size=(4, 4, 4), reach=(0.4, 0.8))
    return VoxelScenes(made, format="20/1", transform=Compose([TimeReverse(), CubeSymmetry()]))


def adversarial(model: AEncGAN3D, **options: object) -> ConditionalAdversarial:
    chosen = {"score": WassersteinScoreLoss(), "turns": Alternating(discriminator_steps=1), "gradient_penalty": 10.0}
    chosen |= {"adversarial_weight": 1.0, "pixel_weight": 0.0, "judge_from": model.context, "discriminator_rate": 1.0}
    regime = TeacherForced(context=model.context, horizon=2, loss=VolumeLoss())
    return ConditionalAdversarial(regime, model.make_critic(), **(chosen | options)).attach(model)


def volumes(batch: int = 2, length: int = 5) -> Tensor:
    return (torch.rand(batch, length, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def test_a_volume_model_trains_validates_and_resumes_like_any_other(tmp_path: Path) -> None:
    losses = {}
    for name, stops in (("whole", [6]), ("resumed", [3, 6])):
        for steps in stops:
            torch.manual_seed(0)
            trainer = Trainer(
                ConvLSTMPredictor(**TINY),
                SelfFeeding(context=4, horizon=3, loss=VolumeLoss(jaccard=0.5)),
                run_dir=tmp_path / name,
                steps=steps,
                batch_size=2,
                lr=1e-2,
                schedule="constant",
            )
            metrics = trainer.fit(scenes(), scenes(), resume="auto")
        losses[name] = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    assert {"mse", "mse_mean", "jaccard", "copy_last/jaccard"} <= metrics.keys()
    assert 0 <= metrics["copy_last/jaccard"] <= 1
    assert all(torch.equal(losses["whole"][key], losses["resumed"][key]) for key in losses["whole"])
    assert newest_checkpoint(tmp_path / "resumed") is not None


@pytest.mark.parametrize(("context", "condition"), [(1, "input"), (3, "input"), (1, "target"), (3, "target")])
def test_the_critic_is_shown_each_frame_beside_its_condition(context: int, condition: str) -> None:
    torch.manual_seed(0)
    model = AEncGAN3D(context=context, condition=condition, **GAN)
    strategy, batch, shown = adversarial(model), volumes(length=context + 2), []
    strategy.discriminator.register_forward_pre_hook(lambda _, arguments: shown.append(arguments[0].detach()))
    strategy.begin(0)
    strategy(batch)
    real, fake = shown[0], shown[1]
    assert len(real) == len(fake) == 2 * 2
    for clip in range(2):
        for index in range(2):
            time = context + index
            past = batch[clip, time - context : time, 0] if condition == "input" else batch[clip, time]
            expected = torch.cat([batch[clip, time], past])
            assert torch.equal(real[2 * clip + index], expected)
            assert torch.equal(fake[2 * clip + index, 1:], expected[1:])


def test_the_critics_loss_is_wgan_gp_written_out() -> None:
    torch.manual_seed(0)
    model = AEncGAN3D(**GAN)
    strategy, batch = adversarial(model), volumes(length=3)
    strategy.begin(0)
    torch.manual_seed(7)
    loss, _ = strategy(batch)
    critic = strategy.discriminator
    with torch.no_grad():
        fake = torch.stack(
            [torch.sigmoid(model.generator(model.encoder(frame))) for frame in batch[:, :2].unbind(1)], 1
        )
    real, fake, past = batch[:, 1:].flatten(0, 1), fake.flatten(0, 1), batch[:, :2].flatten(0, 1)
    torch.manual_seed(7)
    share = torch.rand(4).view(-1, 1, 1, 1, 1)
    between = (real + share * (fake - real)).requires_grad_()
    slopes = torch.autograd.grad(critic(torch.cat([between, past], 1)).sum(), between, create_graph=True)[0]
    penalty = ((slopes.flatten(1).norm(dim=1) - 1) ** 2).mean()
    scores = [critic(torch.cat([frames, past], 1)).mean() for frames in (fake, real)]
    torch.testing.assert_close(loss, scores[0] - scores[1] + 10 * penalty, rtol=1e-4, atol=1e-5)
    # The penalty is differentiated a second time, down to the first layer.
    loss.backward()
    assert critic.features[0].weight.grad.abs().max() > 0


def test_each_turn_moves_its_own_network_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AEncGAN3D(**GAN)
    before = copy.deepcopy(model.state_dict())
    strategy = adversarial(model)
    critic = copy.deepcopy(strategy.discriminator.state_dict())
    trainer = Trainer(model, strategy, run_dir=tmp_path, steps=1, batch_size=2, lr=1e-2)
    trainer.fit(scenes())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.named_parameters())
    assert any(not torch.equal(critic[name], tensor) for name, tensor in strategy.discriminator.named_parameters())


def test_what_is_judged_before_it_can_be_predicted_is_refused() -> None:
    model = AEncGAN3D(context=3, **GAN)
    with pytest.raises(ValueError, match="judge_from must be at least the model's context of 3"):
        adversarial(model, judge_from=2)
    with pytest.raises(TypeError, match="no 'condition'"):
        adversarial(AEncGAN3D(**GAN)).attach(ConvLSTMPredictor(**TINY))
