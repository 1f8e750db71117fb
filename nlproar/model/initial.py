"""The model before training, and what it must do to be explained.

Letters: B batch, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch, make_batch
from nlproar.dataset.encoding import Split
from nlproar.dataset.vocabulary import PAD
from nlproar.errors import UserError
from nlproar.model.classifier import Classifier, Start, class_of
from nlproar.model.modes import frozen

TOLERANCE = 1e-3  # of the checks: a share of the largest of the numbers that are compared
_SMALLEST_LOGIT = 0.01  # where all logits are smaller, the share is one of this number

_CHECKED = 4  # observations of the batch on which a model is checked
_CHECKED_TOKENS = 128  # of each of them, at most


def initial_model(model_type: str, start: Start) -> Classifier:
    """Return the model before training, see `Classifier.initial`.

    Raises UserError for a model that could not be saved, or whose explanations would be wrong, see `check`.
    """
    model = class_of(model_type).initial(start)
    if not hasattr(model, "shape"):
        raise UserError(
            f"--model-type {model_type}: `initial` of {type(model).__name__} does not set `shape` on the model, without"
            " which it cannot be saved; see nlproar.model.classifier"
        )
    check(model, start.dataset.splits["train"], start.recipe.chosen_by(model_type))
    return model


def check(model: Classifier, train: Split, chosen_by: str) -> None:
    """Raise UserError for a model of which gradient measures, or tests in batches, would be silently wrong.

    On one padded batch of real observations, of which each has a masked token: the logits from tokens must be those
    from embeddings, padding must change no logit, and the gradient at padding must be zero. The model is looked at as
    measures do, in evaluation mode and in the precision of its weights. `chosen_by` is the flag that has chosen it.
    """
    explained = frozen(model)
    explained.to_full_precision()
    reason = _flaw(explained, train)
    if reason is not None:
        raise UserError(f"{chosen_by}: this model cannot be explained, as {reason}; choose another model")


def _flaw(model: Classifier, train: Split) -> str | None:
    batch, alone = _checked_batches(train)
    try:
        embedded = model.embed(batch).detach().requires_grad_()
        with torch.enable_grad():
            logits = model(batch, embedded).logits
    except (ValueError, TypeError, NotImplementedError) as error:
        return f"it takes no embeddings in the place of tokens ({' '.join(str(error).split())[:100]})"
    if not logits.requires_grad:
        return "its logits have no gradient with respect to the embeddings that it is given"
    (gradient,) = torch.autograd.grad(logits.sum(), embedded)
    logits = logits.detach()
    if not logits.isfinite().all():
        return None  # training, or a test, says so
    with torch.no_grad():
        from_tokens = model.predict_from_tokens(batch)
        single = torch.cat([model(one).logits for one in alone])
    if not _are_close(from_tokens, logits):
        return "its logits from embeddings are not those from tokens"
    if not _are_close(single, logits):
        return "its logits depend on the padding of the batch"
    at_padding = gradient[batch.tokens == PAD]
    if float(at_padding.abs().max()) > 1e-6 * float(gradient.abs().max()):
        return "its logits depend on the embedding of padding"
    return None


def _are_close(one: Tensor, other: Tensor) -> bool:
    """Return whether two logits (B, C) are the same up to rounding."""
    return bool((one - other).abs().max() <= TOLERANCE * max(_SMALLEST_LOGIT, float(other.abs().max())))


def _checked_batches(train: Split) -> tuple[SequenceBatch, list[SequenceBatch]]:
    """Return one padded batch of observations of different lengths, and each of them alone."""
    lengths = train.lengths
    short_enough = np.flatnonzero(lengths <= max(_CHECKED_TOKENS, lengths.min()))
    order = short_enough[np.argsort(lengths[short_enough], kind="stable")]
    chosen = order[np.linspace(0, len(order) - 1, min(_CHECKED, len(order))).astype(int)]
    middle = train.offsets[chosen] + lengths[chosen] // 2
    mask = np.zeros(len(train.tokens), bool)
    mask[middle] = train.maskable[middle]
    masked = train.masked(mask)
    batch = make_batch(masked, chosen, int(lengths[chosen].max()) + 3)
    alone = [make_batch(masked, chosen[number : number + 1]) for number in range(len(chosen))]
    return batch, alone
