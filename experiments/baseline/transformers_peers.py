"""The plain way to train, test and explain a transformer: what a user writes with transformers and Captum alone.

Batches hold observations in random order, and each is padded to its longest one. The network, the optimizer with its
settings, the data and the number of observations of a batch are those of nlproar.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from baseline.peers import STEPS, Attribution
from captum.attr import LayerIntegratedGradients
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from nlproar.dataset.encoding import Split
from nlproar.dataset.vocabulary import FIRST_MASKABLE, MASK
from nlproar.model.recipes import TransformerRecipe

Rows = list[dict[str, Any]]  # observations, see `Encoders.rows`


def has_trainer() -> bool:
    """Return whether transformers' `Trainer` can be used. It needs the package accelerate, which nlproar does not."""
    return find_spec("accelerate") is not None


def collator(padding: int) -> Any:
    """Return what pads the observations of a batch to the longest one. It asks a tokenizer for nothing but the number
    of its padding token."""
    numbers = {"[PAD]": padding, "[UNK]": padding + 1}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(numbers, "[UNK]")), pad_token="[PAD]")
    return DataCollatorWithPadding(tokenizer)


def loop_train(network: Any, rows: Rows, collate: Any, recipe: TransformerRecipe, device: torch.device) -> None:
    """Train for an epoch in a loop that is written out."""
    torch.use_deterministic_algorithms(False)  # which nlproar sets, and which is no default
    loader: Any = DataLoader(rows, recipe.batch_size, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(_groups(network, recipe), lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)
    steps = len(loader)
    schedule = get_linear_schedule_with_warmup(optimizer, int(recipe.warm_up * steps), steps)
    network.train()
    for batch in loader:
        loss = network(**batch.to(device)).loss
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def _groups(network: nn.Module, recipe: TransformerRecipe) -> list[dict[str, Any]]:
    """Return the parameters with and without weight decay."""
    matrices = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    return [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]


@torch.no_grad()
def loop_predict(network: Any, rows: Rows, collate: Any, batch_size: int, device: torch.device) -> Tensor:
    """Return the logits of all observations, (N, C), in a loop that is written out."""
    loader: Any = DataLoader(rows, batch_size, collate_fn=collate)  # type: ignore[arg-type]
    network.eval()
    return torch.cat([network(**batch.to(device)).logits.cpu() for batch in loader])


def trainer(network: Any, rows: Rows, collate: Any, recipe: TransformerRecipe, device: torch.device, by: str) -> Any:
    """Return transformers' `Trainer` with the optimizer of the recipe. It writes nothing and shows no bar.

    Its batches are drawn `by` "random", which is the default, or "group_by_length".
    """
    torch.use_deterministic_algorithms(False)  # which nlproar sets, and which is no default
    steps = -(-len(rows) // recipe.batch_size)
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        num_train_epochs=1,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        train_sampling_strategy=by,
        learning_rate=recipe.learning_rate,
        adam_beta2=0.98,
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="linear",
        warmup_steps=int(recipe.warm_up * steps),
        max_grad_norm=0.0,  # no clipping, as in nlproar
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
    )
    rows_of_trainer: Any = rows
    made = Trainer(network, arguments, data_collator=collate, train_dataset=rows_of_trainer)
    made.remove_callback(PrinterCallback)
    return made


def layer_integrated_gradient(
    model: Any, split: Split, batch_size: int, tokens_per_batch: int, with_gap: bool = False
) -> Attribution:
    """Return Captum's integrated gradient at the layer of the word embeddings.

    The path starts at the embedding of the mask token in the place of every token that can be masked. From padding, as
    in tutorials, the values would be right as well, but not the gap: RoBERTa gives padding no position of its own, so
    what Captum predicts for a text of padding is not the start of the path. Batches are in the order of the split, with
    as many points at once as fit into `tokens_per_batch` tokens.
    `model` is a frozen `Transformer`.
    """
    network = model.network
    device = next(network.parameters()).device

    def logits_of(ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = network(input_ids=ids, attention_mask=attention_mask).logits
        return logits

    method: Any = LayerIntegratedGradients(logits_of, network.get_input_embeddings())
    values = np.zeros(len(split.tokens), np.float32)
    gap = np.zeros(len(split))
    for start in range(0, len(split), batch_size):
        numbers = np.arange(start, min(start + batch_size, len(split)))
        lengths = split.lengths[numbers]
        position = np.arange(lengths.max())
        inside = position < lengths[:, None]
        place = (split.offsets[numbers][:, None] + position)[inside]
        tokens = np.zeros(inside.shape, np.int64)
        tokens[inside] = split.tokens[place]

        ours = torch.from_numpy(tokens).to(device)
        attention_mask = torch.from_numpy(inside.astype(np.int64)).to(device)
        ids = model.permutation[ours]
        found = method.attribute(
            ids,
            baselines=torch.where(ours >= FIRST_MASKABLE, model.permutation[MASK], ids),
            target=torch.from_numpy(split.label[numbers]).to(device),
            additional_forward_args=(attention_mask,),
            n_steps=STEPS,
            internal_batch_size=max(len(numbers), tokens_per_batch // len(position)),
            return_convergence_delta=with_gap,
        )
        if with_gap:
            found, delta = found
            gap[numbers] = delta.abs().cpu().numpy()
        values[place] = found.sum(dim=2).abs().detach().float().cpu().numpy()[inside]
    return Attribution(values, gap)
