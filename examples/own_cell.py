# SPDX-License-Identifier: Apache-2.0
"""A recurrent cell of one's own inside MSPN's pyramid: define it, train it, save it, load it, predict with it.

The cell keeps more of its memory at the start, as its forget gates begin open (Jozefowicz et al. 2015).

    python examples/own_cell.py --steps 200 --out own-cell
"""

import argparse

import torch

import pcvideo


class OpenForgetCell(pcvideo.EDLSTMCell):
    def __init__(self, *, forget_bias: float, **parts):
        super().__init__(**parts)
        self.forget_bias = forget_bias

    def update(self, gates, state):
        i, f, o, g = gates.chunk(4, dim=1)
        return super().update(torch.cat([i, f + self.forget_bias, o, g], dim=1), state)


class OpenForgetPredictor(pcvideo.MultiScalePredictor):
    """Arguments are plain numbers, kept under their names: so it has a config, and saves and loads."""

    def __init__(self, *, in_channels: int = 1, widths: tuple[int, ...] = (8, 16, 32), forget_bias: float = 1.0):
        levels = len(widths) - 1
        cells = [
            OpenForgetCell(
                forget_bias=forget_bias,
                in_channels=self.level_channels(level, levels, in_channels),
                hidden_channels=8,
                image_channels=in_channels,
                channels=widths[: len(widths) - level],
                latent_channels=widths[levels - level - 1] if level < levels - 1 else 0,
            )
            for level in range(levels)
        ]
        super().__init__(cells, in_channels=in_channels)
        self.widths, self.forget_bias = widths, forget_bias


def main(steps: int, out: str) -> torch.Tensor:
    torch.manual_seed(0)
    clips = pcvideo.data.MovingMNIST(clips=64, size=32, frames=8, num_digits=1)
    batches = torch.stack([clips[index] for index in range(64)]).split(4)
    model = OpenForgetPredictor(forget_bias=1.0)
    optimizer, loss_of = torch.optim.Adam(model.parameters(), lr=3e-3), pcvideo.losses.PyramidLoss(batch_mean=True)
    for step in range(steps):
        frames = batches[step % len(batches)]
        pyramids = pcvideo.rollout.rollout(model, frames[:, :-1], feed=pcvideo.rollout.feed_context(5)).pyramids
        loss = loss_of(pyramids, [model.targets(frame) for frame in frames[:, 1:].unbind(1)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.1f}")
    model.save_pretrained(out)
    future = OpenForgetPredictor.from_pretrained(out).predict(clips[0][:5], horizon=3)
    print(f"saved to {out}; predicted {tuple(future.shape)}")
    return future


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", default="own-cell")
    main(**vars(parser.parse_args()))
