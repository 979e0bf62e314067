# SPDX-License-Identifier: Apache-2.0
"""What every predictor promises, as one class of tests that each model's own test inherits.

Kept apart from the test files, so that it is only run where a model is given.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from stream_contract import TOLERANCES, StreamContract, assert_near
from torch import Tensor, nn

from pcvideo._memory_format import channels_last
from pcvideo.models import Predictor
from pcvideo.rollout import feed_context, flatten_state, rollout, unroll

BAD_HORIZONS = [0, -1, 2.5, True, "3", None]


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


class PredictorContract(StreamContract):
    """Inherit, name the class Test..., and give `make`; the rest describes what it makes."""

    # Shapes and sizes

    def test_forward_gives_as_many_frames_as_asked_for_in_the_dtype_of_the_input(self) -> None:
        frames = self.frames().float()
        future = self.model(torch.float32)(frames, horizon=2)
        assert future.shape == (2, 2, *frames.shape[2:])
        assert future.dtype == torch.float32
        assert torch.isfinite(future).all()

    def test_one_frame_is_context_enough(self) -> None:
        assert self.model()(self.frames(length=1), 1).shape[1] == 1

    def test_targets_have_the_shapes_of_the_pyramid(self) -> None:
        model, frames = self.model(), self.frames()
        targets = [target.shape for target in model.targets(frames[:, 1])]
        pyramids = rollout(model, frames, 2 * len(targets)).pyramids
        # Levels may begin one after another.
        assert [level.shape for level in pyramids[0]] == targets[: len(pyramids[0])]
        assert [level.shape for level in pyramids[-1]] == targets

    @pytest.mark.parametrize("size", [(59, 59), (1, 7)])
    def test_predict_takes_any_size_and_equals_forward_on_repeated_edges(self, size: tuple[int, int]) -> None:
        model, frames = self.model(torch.float32), self.frames(1, 2, size=size).float()
        future = model.predict(frames, 2)
        space = frames.shape[3:]
        edges = [(0, 0)] * 3 + [(0, -side % self.multiple) for side in space]
        padded = torch.from_numpy(np.pad(frames.numpy(), edges, mode="edge"))
        expected = model(padded, 2)[(..., *map(slice, space))].clamp(0, 1)
        assert future.shape == (1, 2, self.channels, *space)
        torch.testing.assert_close(future, expected)

    def test_forward_names_the_nearest_size_that_fits(self) -> None:
        if self.multiple == 1:
            pytest.skip("every size fits this model")
        model = self.model()
        assert model.size_multiple == self.multiple
        size = (2 * self.multiple + 1, 3 * self.multiple - 1)
        with pytest.raises(ValueError, match="predict") as caught:
            model(self.frames(size=size), 1)
        named = re.search(r"nearest size that fits is ([\dx]+)", str(caught.value))
        assert named
        space = self.frames(size=size).shape[3:]
        for side, fitting in zip(space, map(int, named[1].split("x")), strict=True):
            assert fitting % self.multiple == 0
            assert abs(fitting - side) <= self.multiple / 2

    # What a prediction depends on

    def test_a_batch_gives_what_its_clips_give_alone(self) -> None:
        model, frames = self.model(), self.frames(3)
        alone = torch.cat([model(clip[None], 2) for clip in frames])
        assert_near(model(frames, 2), alone, 1e-12)

    def test_a_prediction_does_not_depend_on_its_batch_mates(self) -> None:
        model, frames = self.model(), self.frames()
        others = torch.cat([frames[:1], 1 - frames[1:]])
        assert_near(model(others, 2)[0], model(frames, 2)[0], 1e-12)

    def test_a_short_horizon_is_the_beginning_of_a_long_one(self) -> None:
        model, frames = self.model(), self.frames()
        assert torch.equal(model(frames, 2), model(frames, 4)[:, :2])

    def test_two_runs_are_equal_bit_for_bit(self) -> None:
        frames = self.frames().float()
        assert torch.equal(self.model(torch.float32)(frames, 3), self.model(torch.float32)(frames, 3))

    def test_frames_in_channels_last_memory_give_the_same(self) -> None:
        model, frames = self.model(), self.frames()
        last = frames.movedim(2, -1).contiguous().movedim(-1, 2)
        assert_near(model(last, 2), model(frames, 2), 1e-12)

    # The carried state

    def test_steps_one_by_one_give_what_forward_gives(self) -> None:
        model, frames = self.model(), self.frames()
        state, predictions = model.init_state(frames[:, 0]), []
        for time in range(5):
            pyramid, state = model.step(frames[:, time] if time < 3 else None, state)
            predictions.append(pyramid[0])
        expected = torch.stack(predictions[2:], dim=1)
        assert_near(model(frames, 3), model.to_frames(expected), 1e-12)

    def test_the_first_state_reads_the_form_of_the_frame_and_not_its_values(self) -> None:
        model, frames = self.model(), self.frames()
        one, other = (flatten_state(model.init_state(frames[:, time])) for time in (0, 1))
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    def test_a_clip_cut_in_two_with_its_state_carried_equals_the_whole(self) -> None:
        model, frames = self.model(), self.frames(length=4)
        whole = rollout(model, frames).pyramids
        first = rollout(model, frames[:, :2])
        second = rollout(model, frames[:, 2:], state=first.state)
        for one, other in zip(first.pyramids + second.pyramids, whole, strict=True):
            for level, same in zip(one, other, strict=True):
                assert_near(level, same, 1e-12)

    def test_feeding_the_prediction_is_feeding_none(self) -> None:
        model, frames = self.model(), self.frames()
        pyramid, state = model.step(frames[:, 0], model.init_state(frames[:, 0]))
        by_hand, _ = model.step(pyramid[0], state)
        by_none, _ = model.step(None, state)
        assert_near(by_none[0], by_hand[0], 1e-12)

    def test_what_a_state_says_was_seen_are_the_targets_of_that_frame(self) -> None:
        model, frames = self.model(), self.frames()
        for time, (pyramid, state) in enumerate(unroll(model, frames)):
            seen = model.seen(state)
            if seen is None:
                pytest.skip("its state does not hold them")
            assert len(seen) == len(pyramid)
            for level, target in zip(seen, model.targets(frames[:, time]), strict=False):
                assert_near(level, target, 1e-12)

    def test_a_carried_state_that_is_renewed_follows_weights_that_changed(self) -> None:
        model, frames = self.model(), self.frames(length=4)
        state = rollout(model, frames[:, :2]).state
        assert_near(
            rollout(model, frames[:, 2:], state=model.renew(state)).pyramids[0][0],
            rollout(model, frames[:, 2:], state=state).pyramids[0][0],
            1e-12,
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        pyramid, _ = model.step(frames[:, 2], model.renew(state))
        assert torch.equal(rollout(model, frames[:, 2:], state=state).pyramids[0][0], pyramid[0])

    # Training

    def test_every_parameter_gets_a_gradient(self) -> None:
        frames = self.frames(length=self.enough)
        for training in (True, False):
            model = self.model().train(training)
            self._loss(model, frames).backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name
                assert parameter.grad.abs().max() > 0, name

    def test_gradients_flow_back_through_frames_that_were_fed_back(self) -> None:
        model, frames = self.model(), self.frames().requires_grad_()
        model(frames, 3)[:, 2].square().sum().backward()
        assert frames.grad is not None
        assert torch.isfinite(frames.grad).all()
        assert (frames.grad.abs().transpose(0, 1).flatten(1).amax(1) > 0).all()

    def test_gradients_are_those_of_finite_differences(self) -> None:
        # Along one direction: the network is piecewise smooth, and a direction seldom meets a seam.
        model, frames = self.model(), 0.1 + 0.8 * self.frames(1, 2)
        ahead, step = self.frames(1, 2, seed=1) - 0.5, 1e-6
        weights = self.frames(1, 3, seed=2)
        inputs = frames.clone().requires_grad_()
        (slope,) = torch.autograd.grad((weights * model(inputs, 3)).sum(), inputs)
        with torch.no_grad():
            more, less = ((weights * model(frames + sign * step * ahead, 3)).sum() for sign in (1, -1))
        expected = (more - less).item() / (2 * step)
        assert (slope * ahead).sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-7)

    def test_activation_checkpointing_changes_neither_gradients_nor_buffers(self) -> None:
        frames, results = self.frames(length=4), []
        for checkpoint in (False, True):
            model = self.model().train()
            self._loss(model, frames, checkpoint=checkpoint).backward()
            gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
            results.append(gradients | dict(model.named_buffers()))
        assert results[0].keys() == results[1].keys()
        for name, value in results[0].items():
            distance = (results[1][name] - value).abs().max()
            assert distance <= 1e-12 * max(1, value.abs().max()), name

    def test_one_optimizer_step_lowers_the_loss(self) -> None:
        model, frames = self.model().train(), self.frames(length=4)
        before = self._loss(model, frames)
        before.backward()
        with torch.no_grad():
            steepness = sum(parameter.grad.square().sum() for parameter in model.parameters())
            for parameter in model.parameters():
                parameter.sub_(1e-3 * before.detach() / steepness * parameter.grad)
        assert self._loss(model, frames) < before

    def test_predict_leaves_modes_weights_and_graph_alone(self) -> None:
        model = self.model(torch.float32).train()
        frozen = next(module for module in model.modules() if not list(module.children())).eval()
        modes, before = [module.training for module in model.modules()], tensors_of(model)
        assert not model.predict(self.frames().float(), 2).requires_grad
        stream = model.stream()
        assert not stream.push(self.frames().float()[:, 0]).requires_grad
        stream.load_state_dict(stream.state_dict())
        assert [module.training for module in model.modules()] == modes
        assert not frozen.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), name

    def test_a_deep_copy_predicts_the_same_and_lives_apart(self) -> None:
        model, frames = self.model(), self.frames()
        twin, expected = copy.deepcopy(model), model(frames, 2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        assert torch.equal(twin(frames, 2), expected)

    # Saving and loading

    def test_saved_and_loaded_it_predicts_the_same(self, tmp_path) -> None:
        model, frames = self.model(torch.float32), self.frames().float()
        model.save_pretrained(tmp_path / "weights")
        loaded = type(model).from_pretrained(tmp_path / "weights")
        assert not loaded.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
        assert_near(loaded(frames, 2), model(frames, 2), 4 * TOLERANCES[torch.float32])
        # Loaded weights have their channels last, in which sums round otherwise; so bit for bit in that form alone.
        alike = channels_last(model)
        assert torch.equal(loaded(frames, 2), alike(frames, 2))
        names = sorted(path.name for path in (tmp_path / "weights").iterdir())
        assert names == ["config.json", "manifest.json", "model.safetensors"]
        assert [path.name for path in tmp_path.iterdir()] == ["weights"]

    def test_its_config_survives_json_with_its_tuples(self) -> None:
        config = self.model().config
        again = type(self.model()).from_config(json.loads(json.dumps(config)))
        assert again.config == config
        assert [type(value) for value in again.config.values()] == [type(value) for value in config.values()]

    # Precision

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_narrow_weights_give_what_wide_ones_give(self, dtype: torch.dtype) -> None:
        narrow, frames = self.model(dtype), self.frames().to(dtype)
        # The same rounded weights and frames, so that only the arithmetic differs.
        wide = copy.deepcopy(narrow).double()
        future = narrow(frames, 2)
        assert future.dtype == dtype
        assert_near(future, wide(frames.double(), 2), 4 * TOLERANCES[dtype])
        state = flatten_state(rollout(narrow, frames).state)
        for name, tensor in state.items():
            assert tensor.dtype == (torch.float32 if name.endswith(".cell") else dtype), name

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_frames_of_another_dtype_come_back_in_it(self, dtype: torch.dtype) -> None:
        model, frames = self.model(torch.float32), self.frames().to(dtype)
        future = model(frames, 2)
        assert future.dtype == dtype
        assert torch.equal(future, model(frames.float(), 2).to(dtype))

    def test_autocast_gives_what_full_precision_gives(self) -> None:
        model, frames = self.model(torch.float32), self.frames().float()
        expected = model(frames, 2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_near(model(frames, 2), expected, 4 * TOLERANCES[torch.bfloat16])
            state = flatten_state(rollout(model, frames).state)
        assert all(tensor.dtype == torch.float32 for name, tensor in state.items() if name.endswith(".cell"))

    # Compilation

    def test_step_compiles_whole_and_is_not_compiled_again_for_other_horizons(self) -> None:
        if self.backend is None:
            pytest.skip("its step consists of what is compiled for other variants")
        assert self._compiled(self.backend, 1e-12) == self.graphs

    def _compiled(self, backend: str, tolerance: float) -> int:
        model, frames = self.model(), self.frames()
        expected = {horizon: model(frames, horizon) for horizon in (1, 2, 3, 5)}
        count, inner = 0, torch._dynamo.lookup_backend(backend)

        def counting(graph: Any, inputs: Any) -> Callable[..., Any]:
            nonlocal count
            count += 1
            return inner(graph, inputs)

        torch._dynamo.reset()
        model.step = torch.compile(model.step, fullgraph=True, backend=counting)  # type: ignore[method-assign]
        with torch.no_grad():
            model(frames, self.graphs)
            warm = count
            for horizon, future in expected.items():
                assert_near(model(frames, horizon), future, tolerance)
        assert count == warm
        return count

    # Other kinds of input

    def test_predict_takes_numpy_uint8_single_clips_and_batches_alike(self) -> None:
        model = self.model(torch.float32)
        eight_bit = (255 * self.frames(1, 3)[0]).to(torch.uint8)
        expected = model((eight_bit / 255)[None], 2)[0].clamp(0, 1)
        last = eight_bit.permute(0, 2, 3, 1)
        for clip, options in [
            (eight_bit, {}),
            (eight_bit.numpy(), {}),
            (eight_bit.double().numpy() / 255, {}),
            (eight_bit.float(), {"value_range": (0, 255)}),
            (last.numpy(), {"layout": "THWC"}),
        ]:
            future = model.predict(clip, 2, **options)
            assert future.dtype == torch.float32
            torch.testing.assert_close(future, expected)
        torch.testing.assert_close(model.predict(eight_bit[None].numpy(), 2), expected[None])
        torch.testing.assert_close(model.predict(last[None], 2, layout="BTHWC"), expected[None])

    def test_context_looks_at_the_last_frames_alone(self) -> None:
        model, clip = self.model(torch.float32), self.frames(1, 4)[0]
        assert torch.equal(model.predict(clip, 2, context=2), model.predict(clip[2:], 2))

    def test_a_nan_is_repaired_on_request(self) -> None:
        model, clip = self.model(torch.float32), self.frames(1, 3)[0]
        broken, mended = clip.clone(), clip.clone()
        broken[1, 0, 2, 3], mended[1, 0, 2, 3] = torch.nan, clip[0, 0, 2, 3]
        assert torch.equal(model.predict(broken, 1, nan="repair"), model.predict(mended, 1))

    # What is refused

    @pytest.mark.parametrize("horizon", BAD_HORIZONS, ids=repr)
    def test_a_horizon_that_is_no_positive_whole_number_is_refused(self, horizon: Any) -> None:
        model, frames = self.model(), self.frames(1, 1)
        stream = model.stream()
        stream.push(frames[:, 0])
        for door in (model, model.predict, lambda clip, wanted: stream.forecast(wanted)):
            with pytest.raises((TypeError, ValueError), match="horizon must be a whole number of at least 1"):
                door(frames, horizon)
        with pytest.raises((TypeError, ValueError), match="horizon must be"):
            rollout(model, frames, horizon)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 2.0, -0.5])
    def test_a_frame_with_nan_or_out_of_range_is_refused_by_its_number(self, value: float) -> None:
        model, frames = self.model(), self.frames()
        frames[1, 1, 0, 3, 4] = value
        for door in (model, model.predict):
            with pytest.raises(ValueError, match=r"frame 1 (holds NaN or infinity|ranges over).*predict"):
                door(frames, 1)

    def test_clips_of_other_forms_are_refused(self) -> None:
        model, frames = self.model(), self.frames()
        refused: list[tuple[Any, type[Exception], str]] = [
            (frames[:, :0], ValueError, "at least one clip and one frame"),
            (frames[:0], ValueError, "at least one clip and one frame"),
            (frames[0], ValueError, r"frames\[None\]"),
            (frames[0, 0], ValueError, r"\(B, T, C, (D, )?H, W\)"),
            (torch.cat([frames, frames[:, :, :1]], dim=2), ValueError, f"expects C={self.channels} channels, got"),
            (frames[..., :0], ValueError, "height and a width"),
            ((255 * frames).to(torch.uint8), TypeError, "predict"),
            (frames.numpy(), TypeError, "predict"),
            (None, TypeError, "tensor"),
        ]
        for clip, error, words in refused:
            with pytest.raises(error, match=words):
                model(clip, 1)
        for clip in (frames[0, :0], frames[:0], frames[:, :0], frames[0, ..., :0], []):
            with pytest.raises(ValueError, match=r"at least one|empty"):
                model.predict(clip, 1)

    def _loss(self, model: Predictor, frames: Tensor, *, checkpoint: bool = False) -> Tensor:
        """Squared errors at every level, the last steps fed with predictions."""
        pyramids = rollout(model, frames[:, :-1], feed=feed_context(2), checkpoint=checkpoint).pyramids
        return sum(
            (level - target).square().sum()
            for time, pyramid in enumerate(pyramids)
            for level, target in zip(pyramid, model.targets(frames[:, time + 1]), strict=False)
        )
