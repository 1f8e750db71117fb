"""How near a training step is to what the machine can do."""

from __future__ import annotations

import time

import torch
from baseline.world import World
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from nlproar.dataset.batch import TrainingBatches
from nlproar.model import bilstm_attention

PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::mkldnn_rnn_layer", "aten::mkldnn_rnn_layer_backward")


def limit(world: World) -> dict[str, float]:
    """How much of a training step is matrix products, and how long they would take at the rate of large ones."""

    world.reset()
    split = world.split(min(8 * world.shape.batch, world.shape.epoch))
    batches = list(TrainingBatches(split, world.shape.batch, 0))
    optimizer = torch.optim.Adam(world.ours.parameters(), lr=1e-3, amsgrad=True, fused=True)

    def steps() -> None:
        for batch in batches:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(world.ours(batch).logits, batch.label)
            torch.autograd.backward(loss)
            optimizer.step()

    steps()
    small, bilstm_attention.SMALL = bilstm_attention.SMALL, 0  # nobody counts inside oneDNN's LSTM
    with FlopCounterMode(display=False) as counter:
        steps()
    bilstm_attention.SMALL = small
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        steps()
    events = profiled.key_averages()
    total = sum(event.self_cpu_time_total for event in events) / 1e6
    products = sum(event.self_cpu_time_total for event in events if event.key in PRODUCTS) / 1e6
    operations = counter.get_total_flops()
    ideal = operations / matrix_rate()
    print(
        f"{'':22} a step: {100 * products / total:.0f} % of its time in matrix products (or oneDNN's LSTM),"
        f" {operations / len(batches) / 1e9:.2f} GFLOP; at the machine's {operations / ideal / 1e9:.0f} GFLOP/s"
        f" they would take {100 * ideal / total:.0f} %", flush=True,
    )  # fmt: skip
    return {"share_of_products": products / total, "share_at_full_rate": ideal / total,
            "flop_per_step": operations / len(batches), "flop_per_second": operations / ideal}  # fmt: skip


def matrix_rate() -> float:
    """Floating point operations a second of a product of large matrices."""

    a = torch.randn(1024, 1024)
    seconds = []
    for _ in range(30):
        started = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - started)
    return 2 * 1024**3 / min(seconds)  # what the machine can, also when others use it
