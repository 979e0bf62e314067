# SPDX-License-Identifier: Apache-2.0
"""What every interpolator promises, as one class of tests that each model's own test inherits."""

from __future__ import annotations

import copy
import json
import math
import re

import pytest
import torch
from stream_contract import TOLERANCES, assert_near
from torch import Tensor
from torch.nn import functional as F

from pcvideo.models import Interpolator


class InterpolatorContract:
    """Inherit, name the class Test..., and give `make`; the rest describes what it makes."""

    multiple = 16
    """What divides height and width, told apart from the model's own attribute."""
    size = (32, 48)
    backend: str | None = "eager"
    """What `torch.compile` hands its graphs to; None leaves it out, for variants."""

    def make(self) -> Interpolator:
        """A tiny model, with fresh weights."""
        raise NotImplementedError

    def model(self, dtype: torch.dtype = torch.float64) -> Interpolator:
        torch.manual_seed(3)
        return self.make().to(dtype).eval()

    def pair(self, batch: int = 2, *, size: tuple[int, int] | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Smooth frames that have moved by a few pixels."""
        height, width = size or self.size
        frames = torch.rand(batch, 3, height // 4 + 3, width // 4 + 3, generator=torch.Generator().manual_seed(seed))
        large = F.interpolate(frames.double(), size=(height + 4, width + 4), mode="bicubic").clamp(0, 1)
        return large[..., :height, :width].contiguous(), large[..., 2 : height + 2, 3 : width + 3].contiguous()

    def clip(self, length: int = 3, *, size: tuple[int, int] | None = None) -> Tensor:
        return torch.cat([self.pair(1, size=size, seed=number)[0] for number in range(length)])

    # Shapes and sizes

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    def test_the_middle_has_the_shape_and_dtype_of_the_frames(self, dtype: torch.dtype) -> None:
        before, after = (frames.to(dtype) for frames in self.pair())
        with torch.no_grad():
            middle = self.model(torch.float32).middle(before, after)
        assert middle.shape == before.shape
        assert middle.dtype == dtype
        assert float(middle.min()) >= 0
        assert float(middle.max()) <= 1

    def test_forward_names_the_nearest_size_that_fits(self) -> None:
        size = (2 * self.multiple + 1, 3 * self.multiple - 1)
        with pytest.raises(ValueError, match=r"interpolate\(\)") as caught:
            self.model().middle(*self.pair(size=size))
        named = re.search(r"nearest size that fits is (\d+)x(\d+)", str(caught.value))
        assert named
        for side, fitting in zip(size, map(int, named.groups()), strict=True):
            assert fitting % self.multiple == 0
            assert abs(fitting - side) <= self.multiple / 2

    @pytest.mark.parametrize("size", [(59, 59), (1, 7), (8, 8)])
    def test_interpolate_takes_any_size_and_equals_forward_on_repeated_edges(self, size: tuple[int, int]) -> None:
        model, clip = self.model(torch.float32), self.clip(2, size=size).float()
        frames = model.interpolate(clip, cut=None)
        padded = F.pad(clip, (0, -size[1] % self.multiple, 0, -size[0] % self.multiple), mode="replicate")
        with torch.no_grad():
            expected = model.middle(padded[:1], padded[1:])[0, :, : size[0], : size[1]]
        assert frames.shape == (3, 3, *size)
        torch.testing.assert_close(frames[1], expected)

    # What a frame depends on

    def test_a_batch_gives_what_its_pairs_give_alone(self) -> None:
        model, (before, after) = self.model(), self.pair(3)
        with torch.no_grad():
            alone = [model.middle(one[None], other[None]) for one, other in zip(before, after, strict=True)]
            assert_near(model.middle(before, after), torch.cat(alone), 1e-12)

    def test_with_and_without_gradients_it_gives_the_same(self) -> None:
        model, pair = self.model(), self.pair()
        with torch.no_grad():
            plain = model.middle(*pair)
        assert_near(model.middle(*pair), plain, 1e-12)

    def test_two_runs_are_equal_bit_for_bit(self) -> None:
        pair = [frames.float() for frames in self.pair()]
        with torch.no_grad():
            assert torch.equal(self.model(torch.float32).middle(*pair), self.model(torch.float32).middle(*pair))

    # Training

    def test_every_parameter_gets_a_gradient(self) -> None:
        model, (before, after) = self.model().train(), self.pair()
        self.loss(model, before, after).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name

    def loss(self, model: Interpolator, before: Tensor, after: Tensor) -> Tensor:
        """Something that every parameter takes part in."""
        return model.middle(before, after).square().sum()

    def test_gradients_are_those_of_finite_differences(self) -> None:
        model, (before, after) = self.model(), (0.1 + 0.8 * frame for frame in self.pair(1))
        ahead, step = self.pair(1, seed=1)[0] - 0.5, 1e-7
        weights = self.pair(1, seed=2)[0]
        inputs = before.clone().requires_grad_()
        (slope,) = torch.autograd.grad((weights * self.smooth(model, inputs, after)).sum(), inputs)
        with torch.no_grad():
            more, less = ((weights * self.smooth(model, before + sign * step * ahead, after)).sum() for sign in (1, -1))
        assert (slope * ahead).sum().item() == pytest.approx((more - less).item() / (2 * step), rel=1e-4, abs=1e-7)

    def smooth(self, model: Interpolator, before: Tensor, after: Tensor) -> Tensor:
        """The middle frame by a path without jumps."""
        return model.middle(before, after)

    # Saving and loading

    def test_saved_and_loaded_it_gives_the_same(self, tmp_path) -> None:
        model, pair = self.model(torch.float32), [frames.float() for frames in self.pair()]
        model.save_pretrained(tmp_path / "weights")
        loaded = type(model).from_pretrained(tmp_path / "weights")
        assert not loaded.training
        assert loaded.config == model.config
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
        with torch.no_grad():
            assert_near(loaded.middle(*pair), model.middle(*pair), 40 * TOLERANCES[torch.float32])

    def test_its_config_survives_json_with_its_tuples(self) -> None:
        config = self.model().config
        again = type(self.model()).from_config(json.loads(json.dumps(config)))
        assert again.config == config
        assert [type(value) for value in again.config.values()] == [type(value) for value in config.values()]

    # Precision and compilation

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_narrow_weights_give_what_wide_ones_give(self, dtype: torch.dtype) -> None:
        narrow, pair = self.model(dtype), [frames.to(dtype) for frames in self.pair()]
        wide = copy.deepcopy(narrow).double()
        with torch.no_grad():
            expected = wide.middle(*(frames.double() for frames in pair))
            assert_near(narrow.middle(*pair), expected, 8 * TOLERANCES[dtype])

    def test_it_compiles_whole(self) -> None:
        if self.backend is None:
            pytest.skip("it consists of what is compiled for other variants")
        model, pair = self.model(), self.pair()
        with torch.no_grad():
            expected = model(*pair)
            compiled = torch.compile(model, fullgraph=True, backend=self.backend)
            assert_near(compiled(*pair), expected, 1e-12)

    # Whole clips

    @pytest.mark.parametrize("factor", [2, 4, 8])
    def test_every_frame_of_the_clip_stays_where_its_time_is(self, factor: int) -> None:
        model, clip = self.model(torch.float32), self.clip(3).float()
        frames = model.interpolate(clip, factor, cut=None)
        assert len(frames) == 2 * factor + 1
        assert torch.equal(frames[::factor], clip)

    def test_a_factor_of_four_is_two_twice(self) -> None:
        model, clip = self.model(torch.float32), self.clip(3).float()
        twice = model.interpolate(model.interpolate(clip, cut=None), cut=None)
        torch.testing.assert_close(model.interpolate(clip, 4, cut=None), twice, rtol=0, atol=1e-6)

    def test_a_stream_gives_each_frame_before_it_asks_for_the_one_after_the_next(self) -> None:
        model, clip, taken = self.model(torch.float32), self.clip(4).float(), []

        def source():
            for number, frame in enumerate(clip):
                taken.append(number)
                yield frame

        frames = []
        for frame in model.stream(source(), 2, cut=None):
            frames.append(frame)
            assert len(taken) <= len(frames) // 2 + 2
        torch.testing.assert_close(torch.stack(frames), model.interpolate(clip, cut=None))

    def test_across_a_change_of_scene_nothing_is_invented(self) -> None:
        model = self.model(torch.float32)
        dark, light = 0.05 * torch.ones(3, *self.size), 0.9 * torch.ones(3, *self.size)
        frames = model.interpolate(torch.stack((dark, light)), 4)
        assert torch.equal(frames, torch.stack((dark, dark, dark, light, light)))

    def test_numpy_uint8_batches_and_other_layouts_are_taken_alike(self) -> None:
        model = self.model(torch.float32)
        eight_bit = (255 * self.clip(2)).to(torch.uint8)
        expected = model.interpolate(eight_bit / 255, cut=None)
        for clip, options in [
            (eight_bit, {}),
            (eight_bit.numpy(), {}),
            (eight_bit.float(), {"value_range": (0, 255)}),
            (eight_bit.permute(0, 2, 3, 1).numpy(), {"layout": "THWC"}),
        ]:
            torch.testing.assert_close(model.interpolate(clip, cut=None, **options), expected)
        torch.testing.assert_close(model.interpolate(eight_bit[None], cut=None), expected[None])

    def test_interpolate_leaves_modes_and_graph_alone(self) -> None:
        model = self.model(torch.float32).train()
        frames = model.interpolate(self.clip(2).float())
        assert not frames.requires_grad
        assert all(module.training for module in model.modules())
        next(iter(model.stream(self.clip(2).float())))
        assert torch.is_grad_enabled()

    # What is refused

    def test_pairs_of_other_forms_are_refused(self) -> None:
        model, (before, after) = self.model(), self.pair()
        other_size = self.pair(size=(self.size[0] + self.multiple, self.size[1]))[1]
        for one, other, error, words in [
            (before, other_size, ValueError, "before and after must have one shape"),
            (before[:1], after, ValueError, "before and after must have one shape"),
            (before[0], after[0], ValueError, r"before must be \(B, 3, H, W\)"),
            (before[:, :1], after[:, :1], ValueError, r"before must be \(B, 3, H, W\)"),
            (before[:0], after[:0], ValueError, r"before must be \(B, 3, H, W\)"),
            ((255 * before).to(torch.uint8), after, TypeError, "before must be a float tensor"),
            (before, None, TypeError, "after must be a float tensor"),
            (before, 2 + after, ValueError, "after: sample 0 ranges over"),
            (before * math.nan, after, ValueError, "before: sample 0 holds NaN"),
        ]:
            with pytest.raises(error, match=words):
                model.middle(one, other)

    def test_clips_of_other_forms_are_refused_by_the_number_of_the_frame(self) -> None:
        model, clip = self.model(torch.float32), self.clip(3).float()
        with pytest.raises(ValueError, match="at least two frames"):
            model.interpolate(clip[:1])
        with pytest.raises(ValueError, match=r"3|C="):
            model.interpolate(torch.zeros(2, 2, 32, 32), layout="TCHW")
        broken = clip.clone()
        broken[1, 0, 2, 3] = math.nan
        with pytest.raises(ValueError, match="frame 1 holds NaN"):
            model.interpolate(broken)
        with pytest.raises(ValueError, match=r"frame 2 ranges over .* interpolate\(\.\.\., value_range"):
            list(model.stream([clip[0], clip[1], 3 * clip[2] + 1]))
        with pytest.raises(ValueError, match=r"frame 1 must be .* of the size of the first"):
            list(model.stream([clip[0], clip[1][..., :-1]]))
        with pytest.raises(TypeError, match="frame 0 must be a float tensor"):
            list(model.stream([None, None]))

    @pytest.mark.parametrize("factor", [0, 1, 3, 2.5, True, "2", None], ids=repr)
    def test_a_factor_that_is_no_power_of_two_is_refused_at_once(self, factor) -> None:
        model = self.model(torch.float32)
        for door in (model.interpolate, model.stream):
            with pytest.raises(ValueError, match="factor must be one of 2, 4, 8, 16"):
                door(self.clip(2).float(), factor)
