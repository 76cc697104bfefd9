"""Seconds and memory per picture: ``python -m benchmarks generation``.

Stable Diffusion 1.5 in its true size with random weights (``--model`` takes real ones), drawn in
four ways: 50 steps of DDIM, 25 of DPM-Solver++, 4 of LCM, 1 as turbo models do; then the demo's
model. On a GPU every picture is drawn in full. On a CPU each way draws with a few steps only
(``--measured-steps``) and the other steps are added at the time that the last one took; the
column ``measured`` says how many steps were run.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import _stable_diffusion
from eeglib.reconstruction.drawing import ReconstructionError, load_pipeline, reconstruct


@dataclass(frozen=True)
class Way:
    """A way to draw: scheduler, steps, and whether guidance doubles the batch of the UNet."""

    name: str
    scheduler: str
    options: dict[str, Any]
    steps: int
    guidance_scale: float


TURBO = {"timestep_spacing": "trailing"}
WAYS = (
    Way("DDIM", "DDIMScheduler", {"clip_sample": False, "steps_offset": 1}, 50, 7.5),
    Way("DPM-Solver++", "DPMSolverMultistepScheduler", {}, 25, 7.5),
    # Both are distilled to do without guidance: one pass of the UNet a step.
    Way("LCM", "LCMScheduler", {}, 4, 1.0),
    Way("turbo", "EulerDiscreteScheduler", TURBO, 1, 0.0),
)


@dataclass
class Clock:
    """When each step of a drawing ended, s."""

    device: str
    ticks: list[float]

    def now(self) -> float:
        """Wait for the device and read the time."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def step_ended(self, pipeline: Any, step: int, timestep: Any, values: dict) -> dict:
        """Called by diffusers after each step."""
        self.ticks.append(self.now())
        return values


def main(arguments: list[str]) -> int:
    """Measure, print a table and the closing line."""
    import torch

    options = _parse(arguments)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device == "cuda" else torch.float32
    batches = options.batches or ([1, 4, 16] if device == "cuda" else [1])
    figures: dict[str, object] = {"device": _name(device), "threads": torch.get_num_threads()}
    print(f"{figures['device']}, {options.size} x {options.size} pixels, {str(dtype)[6:]}")
    print(f"{'way':14} {'steps':>5} {'batch':>5} {'s/picture':>10} {'pictures/min':>12} "
          f"{'s/step':>8} {'peak_mb':>8}  measured")  # fmt: skip
    if not options.demo_only:
        try:
            pipeline = (
                load_pipeline(options.model, device, dtype)
                if options.model
                else _stable_diffusion.build(device, dtype)
            )
        except ReconstructionError as error:
            print(error, file=sys.stderr)
            return 1
        figures |= _stable_diffusion_rows(pipeline, device, batches, options)
        del pipeline
    figures |= _demo_row(device)
    print("generation " + " ".join(f"{name}={value}" for name, value in figures.items()))
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks generation", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU if there is one")
    parser.add_argument("--batches", type=int, nargs="+", help="pictures at a time")
    parser.add_argument("--size", type=int, default=512, help="height and width, pixels")
    parser.add_argument("--model", help="folder or hub id; default: random weights")
    parser.add_argument(
        "--measured-steps", type=int, help="steps to run; default: all on a GPU, 1 on a CPU"
    )
    parser.add_argument("--demo-only", action="store_true", help="only the demo's model")
    options = parser.parse_args(arguments)
    counts = [*(options.batches or []), options.measured_steps or 1]
    if min(counts) < 1 or options.size < 64 or options.size % 8:
        parser.error("counts must be 1 or more, --size a multiple of 8 from 64")
    return options


def _stable_diffusion_rows(pipeline, device: str, batches: list[int], options) -> dict:
    limit = options.measured_steps or (50 if device == "cuda" else 1)
    clock = Clock(device, [])
    # Kernels are chosen and memory is claimed at the first call.
    _draw(pipeline, WAYS[-1], 1, 1, options.size if device == "cuda" else 64, clock)
    figures: dict[str, object] = {}
    for batch in batches:
        for way in WAYS:
            _reset_memory(device)
            measured = min(way.steps, limit)
            seconds, step = _draw(pipeline, way, batch, measured, options.size, clock)
            seconds += (way.steps - measured) * step
            _print(way.name, way.steps, batch, seconds, step, device, measured)
            key = f"{way.name.lower().replace('-', '_').replace('++', '')}{way.steps}_b{batch}_s"
            figures[key] = round(seconds / batch, 3)
    scaled = limit < max(way.steps for way in WAYS)
    return figures | {"sd_peak_mb": round(_peak_mb(device)), "scaled": str(scaled).lower()}


def _draw(
    pipeline, way: Way, batch: int, steps: int, size: int, clock: Clock
) -> tuple[float, float]:
    """Seconds of drawing a batch, and of its last step."""
    import diffusers
    import torch

    pipeline.scheduler = getattr(diffusers, way.scheduler)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **way.options
    )
    clock.ticks.clear()
    begun = clock.now()
    with torch.inference_mode():
        tokens = torch.randint(49407, (2, 77), device=pipeline.device)
        text, nothing = pipeline.text_encoder(tokens)[0].unsqueeze(1)
        text_ended = clock.now()
        pipeline(
            prompt_embeds=text.repeat(batch, 1, 1),
            negative_prompt_embeds=nothing.repeat(batch, 1, 1),
            num_inference_steps=steps,
            guidance_scale=way.guidance_scale,
            height=size,
            width=size,
            generator=torch.Generator().manual_seed(0),
            callback_on_step_end=clock.step_ended,
        )
    ended = clock.now()
    last = np.diff([text_ended, *clock.ticks])[-1]
    return ended - begun, float(last)


def _demo_row(device: str) -> dict:
    """The demo's model as chapter 7 uses it, alone and in batches; medians of three."""
    try:
        pipeline = load_pipeline("demo", device)
        _reset_memory(device)
        steps = 25
        seconds = {
            batch: _median(lambda i, batch=batch: _draw_demo(pipeline, batch, i, steps), 4)
            for batch in (1, 16)
        }
    except ReconstructionError as error:
        print(f"demo: {error}")
        return {"demo_s": "absent"}
    for batch, taken in seconds.items():
        _print("demo 64 px", steps, batch, taken, taken / steps, device, steps)
    return {"demo_s": round(seconds[1], 3), "demo_b16_s": round(seconds[16] / 16, 4)}


def _draw_demo(pipeline, batch: int, turn: int, steps: int) -> None:
    seeds = range(turn * batch, (turn + 1) * batch)
    reconstruct(pipeline, ["an image of a banana"] * batch, seeds, steps=steps, batch_size=batch)


def _median(call: Callable[[int], Any], n: int) -> float:
    taken = []
    for i in range(n):
        begun = time.perf_counter()
        call(i)
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken[1:]))


def _print(name, steps, batch, seconds, step, device, measured) -> None:
    rate = 60 * batch / seconds
    print(
        f"{name:14} {steps:5} {batch:5} {seconds / batch:10.3f} {rate:12.1f} {step:8.3f} "
        f"{_peak_mb(device):8.0f}  {'all' if measured == steps else f'{measured} of {steps}'}",
        flush=True,
    )


def _reset_memory(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def _peak_mb(device: str) -> float:
    """Peak memory, MB: of the GPU since the last reset, or of this process so far."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes there, KiB elsewhere


def _name(device: str) -> str:
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name().replace(" ", "_")
    return f"{platform.machine()}_{os.cpu_count()}_cores"
