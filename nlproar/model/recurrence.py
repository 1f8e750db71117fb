"""The loop of a bidirectional LSTM over its tokens, on a CPU, forward and backward.

`torch.nn.LSTM` multiplies every token with the input weights, three times in training, and computes the gradient of
all weights whenever it computes one. Here that product is the caller's, who does it once for each distinct word, or
not at all; both directions take a step together; the gradient of the recurrent weights is one product at the end, and
only where it is wanted. Equal to nn.LSTM up to rounding.

Letters: T tokens, B batch, H hidden per direction. The first half of inputs and states belongs to the direction that
starts at the first token, the second half to the one that starts at the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def gate_order(weight: Tensor) -> Tensor:
    """Rows (4H, *) of a weight of nn.LSTM in the order and scale of `Recurrence`: input, forget, output, 2 x cell.

    The factor makes the cell gate's tanh a sigmoid: tanh(x) = 2 sigmoid(2x) - 1, three times faster than torch.tanh.
    """
    i, f, new, o = weight.chunk(4)
    return torch.cat([i, f, o, 2 * new])


class Recurrence(torch.autograd.Function):
    """States (T, B, 2H), 0 at padding, from inputs (T, B, 8H), recurrent weight (2, H, 4H), bias (2, 1, 4H), all in
    `gate_order`, and inside (T, B) bool, false at padding. A state stays 0 until its sequence begins."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, inside: Tensor) -> Tensor:
        """Return the states after every token; see the class for shapes."""
        t, b = inputs.shape[:2]
        h = weight.size(1)
        begun = torch.stack([inside, inside.flip(0)], dim=1)[..., None].to(inputs.dtype)  # (T, 2, B, 1), 0 or 1

        # The way back needs the values of every step. Without it, every step works in the same place.
        is_kept = any(ctx.needs_input_grad)
        places = t if is_kept else 1
        gates = inputs.new_empty(places, 2, b, 4 * h).expand(t, -1, -1, -1)  # after their nonlinearity
        cell = inputs.new_zeros(t + 1 if is_kept else 1, 2, b, h).expand(t + 1, -1, -1, -1)
        squashed = inputs.new_empty(places, 2, b, h).expand(t, -1, -1, -1)  # tanh of the cell
        out = inputs.new_empty(t, b, 2 * h)

        state = inputs.new_zeros(2, b, h)
        state_ahead, state_back = state
        product = inputs.new_empty(2, b, 4 * h)
        product_ahead, product_back = product
        minus_one = inputs.new_tensor(-1.0)
        steps = zip(
            begun.unbind(),
            *_in_step_order(inputs),
            gates.unbind(),
            *_gates(gates),
            cell[:-1].unbind(),
            cell[1:].unbind(),
            squashed.unbind(),
            *_in_step_order(out),
            strict=True,
        )
        for here, in_ahead, in_back, all_gates, i, f, o, new, before, after, tanh, out_ahead, out_back in steps:
            # gates = sigmoid(state @ weight + bias + input)
            torch.bmm(state, weight, out=product).add_(bias)
            torch.add(product_ahead, in_ahead, out=all_gates[0])
            torch.add(product_back, in_back, out=all_gates[1])
            all_gates.sigmoid_()
            # new = tanh(x) = 2 sigmoid(2x) - 1; `gate_order` has doubled x.
            torch.add(minus_one, new, alpha=2, out=new)
            # cell = f * cell + i * new, and 0 until the sequence begins
            torch.mul(f, before, out=after).addcmul_(i, new).mul_(here)
            # state = o * tanh(cell), with the same form of tanh
            torch.add(after, after, out=tanh).sigmoid_()
            torch.add(minus_one, tanh, alpha=2, out=tanh)
            torch.mul(o, tanh, out=state)
            out_ahead.copy_(state_ahead)
            out_back.copy_(state_back)
        if is_kept:
            ctx.save_for_backward(begun, gates, cell, squashed, out, weight)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        """Return the gradients with respect to inputs, weight and bias."""
        if torch.is_grad_enabled():
            raise RuntimeError("this recurrence has no second derivative: differentiate without create_graph")
        begun, gates, cell, squashed, out, weight = ctx.saved_tensors
        t, _, b, h = squashed.shape
        d_inputs = gates.new_empty(t, b, 8 * h)
        d_state = gates.new_zeros(2, b, h)
        d_state_ahead, d_state_back = d_state
        d_cell = gates.new_zeros(2, b, h)
        part = torch.empty_like(d_cell)  # what the state adds to d_cell

        d_gates = gates.new_empty(2, b, 4 * h)  # with respect to the gates
        d_i, d_f, d_o, d_new = d_gates.chunk(4, dim=2)
        d_sigmoids = d_gates[..., : 3 * h]
        d_raw = gates.new_empty(2, b, 4 * h)  # with respect to what is put into their nonlinearity
        d_raw_ahead, d_raw_back = d_raw
        d_raw_sigmoids = d_raw[..., : 3 * h]
        d_raw_new = d_raw[..., 3 * h :]
        total = torch.zeros_like(d_raw)

        transposed = weight.transpose(1, 2)
        half = gates.new_tensor(0.5)
        steps = zip(
            begun.unbind(),
            *_in_step_order(d_out),
            gates[..., : 3 * h].unbind(),
            *_gates(gates),
            cell[:-1].unbind(),
            squashed.unbind(),
            *_in_step_order(d_inputs),
            strict=True,
        )
        for here, out_ahead, out_back, sigmoids, i, f, o, new, before, tanh, in_ahead, in_back in reversed(list(steps)):
            d_state_ahead.add_(out_ahead)
            d_state_back.add_(out_back)
            # state = o * tanh(cell)
            torch.mul(d_state, tanh, out=d_o)
            _tanh_backward(torch.mul(d_state, o, out=part), tanh, grad_input=part)
            d_cell.add_(part).mul_(here)
            # cell = f * before + i * new; the input of tanh in `new` is half of what `gate_order` has doubled.
            torch.mul(d_cell, new, out=d_i)
            torch.mul(d_cell, before, out=d_f)
            torch.mul(d_cell, i, out=d_new).mul_(half)
            # gates = nonlinearity(state @ weight + bias + input)
            _sigmoid_backward(d_sigmoids, sigmoids, grad_input=d_raw_sigmoids)
            _tanh_backward(d_new, new, grad_input=d_raw_new)
            d_cell.mul_(f)
            total.add_(d_raw)
            torch.bmm(d_raw, transposed, out=d_state)
            in_ahead.copy_(d_raw_ahead)
            in_back.copy_(d_raw_back)
        d_weight = _recurrent_gradient(out, d_inputs) if ctx.needs_input_grad[1] else None
        return d_inputs, d_weight, total.sum(dim=1, keepdim=True), None


def _recurrent_gradient(out: Tensor, d_inputs: Tensor) -> Tensor:
    """(2, H, 4H): the sum over all steps of the state before it times the gradient of its gates."""
    ahead, back = out.chunk(2, dim=2)
    d_ahead, d_back = d_inputs.chunk(2, dim=2)
    # The state before a step is that of the token before it or, in the direction that starts at the end, behind it.
    of_ahead = ahead[:-1].flatten(0, 1).T @ d_ahead[1:].flatten(0, 1)
    of_back = back[1:].flatten(0, 1).T @ d_back[:-1].flatten(0, 1)
    return torch.stack([of_ahead, of_back])


def _in_step_order(x: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Both halves of x (T, B, *), a slice for each step: the second direction takes its first at the last token."""
    ahead, back = x.chunk(2, dim=2)
    return ahead.unbind(), back.unbind()[::-1]


def _gates(gates: Tensor) -> list[tuple[Tensor, ...]]:
    return [gate.unbind() for gate in gates.chunk(4, dim=3)]
