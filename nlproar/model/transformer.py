"""Any encoder of Hugging Face's transformers with a head that classifies sequences.

Letters: B batch, T tokens of the first sequence, Q tokens of the second one, S tokens of both, V vocabulary,
E embedding, C classes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification, RobertaConfig

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.pretrained import TINY, load_config, refused
from nlproar.dataset.subwords import SubwordTokenizer, folder_of, open_tokenizer
from nlproar.dataset.vocabulary import CLS, EOS, PAD
from nlproar.errors import UserError
from nlproar.model.classifier import Classifier, Inputs, Prediction, Start, View, largest
from nlproar.model.modes import frozen
from nlproar.model.recipes import Recipe, TransformerRecipe
from nlproar.seeds import derive

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

log = logging.getLogger(__name__)


class Transformer(Classifier):
    """An encoder with a classification head, which reads tokens in our numbers.

    `config` is the configuration as transformers writes it. `permutation` (V,) holds the number that the model itself
    gives to each of our tokens; it is kept with the weights. Of a pair, the second sequence follows the first without
    padding between them, and `query_type` is its token type, where the model tells the two apart.

    With `bf16` the network computes under autocast in bfloat16, in training and tests. Its weights, its outputs and the
    gradients at the embeddings are float32. It is explained in float32, see `to_full_precision`.

    `class_order` (C,) holds the number that the model itself gives to each class of the task; None if it is the same.
    """

    evaluation_tokens: ClassVar[int] = 8192
    explained_tokens: ClassVar[Mapping[str, int]] = {"cpu": 2048, "cuda": 32_768}

    permutation: Tensor
    class_order: Tensor | None

    def __init__(
        self,
        config: dict[str, Any],
        vocabulary_size: int,
        longest: int,
        query_type: int,
        bf16: bool = False,
        class_order: list[int] | None = None,
    ) -> None:
        super().__init__()
        if config.get("attention_type") == "block_sparse":
            # BigBird turns to full attention for good when it meets a short batch, and is then another function.
            config = {**config, "attention_type": "original_full"}
        of_type = CONFIG_MAPPING[config["model_type"]]
        self.network = AutoModelForSequenceClassification.from_config(of_type.from_dict(dict(config)))
        self.longest = longest
        self.query_type = query_type
        self.bf16 = bf16
        self.register_buffer("permutation", torch.arange(vocabulary_size))
        # It stands with the weights, so that their checksum, by which importance is cached, is another one.
        self.register_buffer("class_order", None if class_order is None else torch.tensor(class_order))

    @classmethod
    def initial(cls, start: Start) -> Transformer:
        """Return the model before training. Its weights are pretrained, but for a head that it lacks; `tiny` is random.

        Raises UserError for a model that does not fit the data or the task.
        """
        recipe: TransformerRecipe = start.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(start.seed, "initialisation"))
            make = cls._tiny if recipe.model == TINY else cls._pretrained
            model = make(start, recipe)
        if recipe.bf16:
            model.bf16 = True
            model.shape = {**model.shape, "bf16": True}  # a shape without it is that of a model in float32
        return model

    @classmethod
    def _tiny(cls, start: Start, recipe: TransformerRecipe) -> Transformer:
        """Return a small RoBERTa (Liu et al. 2019) with random weights, whose tokens have our numbers."""
        size = len(start.dataset.vocabulary)
        config = RobertaConfig(
            vocab_size=size,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=512,
            max_position_embeddings=recipe.max_length + PAD + 1,
            type_vocab_size=1,
            pad_token_id=PAD,
            bos_token_id=CLS,
            eos_token_id=EOS,
            num_labels=len(start.task.labels),
        )
        return cls._made(shape_of(config, size, recipe.max_length, query_type=0))

    @classmethod
    def _pretrained(cls, start: Start, recipe: TransformerRecipe) -> Transformer:
        """Return the model that the recipe names, with its own weights where it has them."""
        subwords = recipe.subwords()
        folder = folder_of(subwords)
        tokenizer = open_tokenizer(subwords)
        if tokenizer.words != start.dataset.vocabulary.words:
            raise UserError(f"--model {subwords.model}: its tokenizer is another one than the data were encoded with")
        config = load_config(folder, subwords.model)
        if recipe.as_is and config.num_labels != len(start.task.labels):
            raise UserError(
                f"--model {subwords.model} --as-is: it has {config.num_labels} classes, and {start.task.name} has"
                f" {len(start.task.labels)}; leave --as-is out to train a new head"
            )
        class_names = [str(config.id2label.get(number)) for number in range(config.num_labels)]
        config.num_labels = len(start.task.labels)
        query_type = _query_type(config, tokenizer)
        size = len(tokenizer.permutation)
        with refused(subwords.model, "the model"):
            network, loaded = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # the head of another task is replaced by a random one
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        rows = network.get_input_embeddings().weight.shape[0]
        if tokenizer.permutation.max() >= rows:
            raise UserError(
                f"--model {subwords.model}: its tokenizer has a token of number {tokenizer.permutation.max():,}, and"
                f" the model has embeddings for {rows:,}; copy the folder again"
            )
        shape = shape_of(network.config, size, subwords.longest, query_type)
        _check_weights(loaded, network.base_model_prefix, recipe.as_is, subwords.model)
        if recipe.as_is:
            order = class_order(class_names, start.task.labels, subwords.model)
            if order is not None:
                shape["class_order"] = order
        model = cls._made(shape)
        model.network.load_state_dict(network.state_dict())
        model.permutation.copy_(torch.from_numpy(tokenizer.permutation))
        return model

    @classmethod
    def _made(cls, shape: Mapping[str, Any]) -> Transformer:
        model = cls(**shape)
        model.shape = dict(shape)
        return model

    @property
    def word_embedding(self) -> nn.Module:
        """The layer that maps the numbers of the model's own tokens to embeddings."""
        layer: nn.Module = self.network.get_input_embeddings()
        return layer

    @property
    def embedding_matrix(self) -> Tensor:
        """The word embeddings of all tokens in our order, (V, E)."""
        matrix: Tensor = self.word_embedding(self.permutation)
        return matrix

    def embed(self, batch: SequenceBatch) -> Tensor:
        """Return the word embeddings of the first sequence, (B, T, E): without positions and token types."""
        return self._look_up(batch.tokens)

    def _look_up(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.word_embedding(self.permutation[tokens])
        return embedded

    def forward(self, batch: SequenceBatch, embedded: Tensor | None = None) -> Prediction:
        """Predict a batch. `embedded` (B, T, E) takes the place of the word embeddings of the first sequence."""
        return Prediction(self._output(batch, embedded).logits, None)

    def _output(self, batch: SequenceBatch, embedded: Tensor | None, **asked: bool) -> Any:
        """Return what the network says of a batch, see `forward`."""
        if embedded is None:
            embedded = self.embed(batch)
        place = self._places(batch)
        if batch.query_tokens is None:
            whole = embedded[:, : place.size(1)]
        else:
            of_both = torch.cat([embedded, self._look_up(batch.query_tokens)], dim=1)
            whole = of_both.gather(1, place[..., None].expand(-1, -1, embedded.size(2)))
        return self._compute(inputs_embeds=whole, **self._surroundings(batch, place), **asked)

    def to_full_precision(self) -> None:
        """See `Classifier.to_full_precision`: an integrated gradient in bfloat16 misses its tolerance by far."""
        self.bf16 = False

    def _compute(self, **inputs: Any) -> Any:
        """Return what the network says, in float32, with the logits of our classes."""
        output = self._compute_in_bfloat16(inputs) if self.bf16 else self.network(**inputs)
        if self.class_order is not None:
            output.logits = output.logits[:, self.class_order]
        return output

    def _compute_in_bfloat16(self, inputs: Mapping[str, Any]) -> Any:
        """Return what the network says where it computes in bfloat16, in float32."""
        with torch.autocast(inputs["attention_mask"].device.type, torch.bfloat16):
            output = self.network(**inputs)
        output.logits = output.logits.float()
        for name in ("attentions", "hidden_states"):
            if output.get(name) is not None:
                output[name] = tuple(layer.float() for layer in output[name])
        return output

    def predict_with_attention(
        self, batch: SequenceBatch, embedded: Tensor, combine: Callable[[Sequence[Tensor]], Tensor]
    ) -> Prediction:
        """Predict a batch, with attention (B, T): that of the first token to each maskable token, divided by its sum.

        `combine` takes the attention of each layer, (B, heads, S, S), to one (B, S, S), see `last_layer` and `rollout`.
        The network has to compute attention in the open (`attn_implementation="eager"`).
        """
        output = self._output(batch, embedded, output_attentions=True)
        if not output.attentions:
            return Prediction(output.logits, None)
        of_first = combine(output.attentions)[:, 0]  # (B, S)
        width = batch.tokens.size(1)
        lacking = max(0, width - of_first.size(1))  # of a text that is longer than what the model takes
        of_text = nn.functional.pad(of_first, (0, lacking))[:, :width]  # (B, T)
        attention = of_text * batch.maskable
        total = attention.sum(dim=1, keepdim=True)
        smallest = torch.finfo(attention.dtype).tiny  # never divide by zero
        return Prediction(output.logits, attention / total.clamp(min=smallest))

    def activations(self, batch: SequenceBatch) -> list[Tensor]:
        """See `Classifier.activations`: of the embeddings and of the output of every layer, for both sequences."""
        output = self._output(batch, None, output_hidden_states=True)
        inside = self._surroundings(batch, self._places(batch))["attention_mask"].bool()
        return [largest(states, inside) for states in output.hidden_states]

    def attending(self) -> View:
        """See `Classifier.attending`: a copy that shares the weights and computes attention in the open."""
        return _Attending(self, last_layer)

    def rolling_out(self) -> View:
        """See `Classifier.rolling_out`."""
        return _Attending(self, rollout)

    def predict_from_tokens(self, batch: SequenceBatch) -> Tensor:
        """See `Classifier.predict_from_tokens`: as the network computes them from the numbers of its own tokens."""
        place = self._places(batch)
        tokens = batch.tokens
        if batch.query_tokens is not None:
            tokens = torch.cat([tokens, batch.query_tokens], dim=1)
        ids = self.permutation[tokens.gather(1, place)]
        logits: Tensor = self._compute(input_ids=ids, **self._surroundings(batch, place)).logits
        return logits

    def _places(self, batch: SequenceBatch) -> Tensor:
        """Return where each token of the joined sequence stands in the first sequence followed by the second one.

        (B, S), where S is at most the length that the model takes. For two tokens of three and a query of two, that
        is 0, 1, 3, 4, and 2 at the padding that follows.
        """
        width = batch.tokens.size(1)
        if batch.query_tokens is None:
            count = min(width, self.longest)
            return torch.arange(count, device=batch.tokens.device).expand(len(batch.tokens), count)
        assert batch.query_length is not None
        count = min(width + batch.query_tokens.size(1), self.longest)
        position = torch.arange(count, device=batch.tokens.device).expand(len(batch.tokens), count)
        length = batch.length[:, None]
        of_query = position - length + width
        # Beyond both, what follows the first sequence: its padding, or any token, as it is not looked at.
        beyond = length.clamp(max=width - 1)
        is_beyond = position >= length + batch.query_length[:, None]
        return torch.where(is_beyond, beyond, torch.where(position < length, position, of_query))

    def _surroundings(self, batch: SequenceBatch, place: Tensor) -> dict[str, Tensor]:
        """Return what the model is told of each place of the joined sequence: is it a token, and in which sequence."""
        position = torch.arange(place.size(1), device=place.device)
        length = batch.length
        if batch.query_length is not None:
            length = length + batch.query_length
        inside = position < length[:, None]
        found = {"attention_mask": inside.long()}
        if self.query_type:
            of_query = inside & (position >= batch.length[:, None])
            found["token_type_ids"] = of_query.long() * self.query_type
        return found

    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        """Return AdamW. Biases and the weights of layer normalisation, which are vectors, have no weight decay."""
        assert isinstance(recipe, TransformerRecipe)
        matrices = [parameter for parameter in self.parameters() if parameter.dim() > 1]
        vectors = [parameter for parameter in self.parameters() if parameter.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)

    def schedule(self, recipe: Recipe, step: int, steps: int) -> float:
        """See `Classifier.schedule`: linear from 0 to 1 over the share `warm_up` of the steps, and then down to 0."""
        assert isinstance(recipe, TransformerRecipe)
        rising = int(recipe.warm_up * steps)
        if step < rising:
            return step / rising
        return (steps - step) / max(1, steps - rising)


class _Attending(View):
    """A transformer whose predictions have attention."""

    model: Transformer

    def __init__(self, model: Transformer, combine: Callable[[Sequence[Tensor]], Tensor]) -> None:
        super().__init__(frozen(model))
        self.model.network.set_attn_implementation("eager")
        self.combine = combine

    def predict(self, batch: SequenceBatch, inputs: Inputs) -> Prediction:
        """See `View.predict`."""
        return self.model.predict_with_attention(batch, inputs.values, self.combine)


def last_layer(attentions: Sequence[Tensor]) -> Tensor:
    """Return the attention of the last of several layers, as a mean over its heads: (B, S, S) of (B, heads, S, S)."""
    return attentions[-1].mean(dim=1)


def rollout(attentions: Sequence[Tensor]) -> Tensor:
    """Return how much of each token reaches each other one through all layers, (B, S, S); each row sums to 1.

    The attention of a layer, (B, heads, S, S), is the mean over its heads, and half of what leaves a layer is what has
    entered it. Abnar & Zuidema 2020 (arXiv 2005.00928).
    """
    first = attentions[0]
    identity = torch.eye(first.size(-1), dtype=first.dtype, device=first.device)
    total = identity.expand(first.size(0), -1, -1)
    for attention in attentions:
        of_layer = (attention.mean(dim=1) + identity) / 2
        total = of_layer @ total
    return total


def shape_of(config: Any, vocabulary_size: int, longest: int, query_type: int) -> dict[str, Any]:
    """Return the arguments of the constructor, as JSON can hold them."""
    return {
        "config": json.loads(config.to_json_string(use_diff=False)),
        "vocabulary_size": vocabulary_size,
        "longest": longest,
        "query_type": query_type,
    }


def class_order(names: Sequence[str], labels: Sequence[str], model: str) -> list[int] | None:
    """Return the number that a model gives to each class of a task; None where it is that of the task.

    `names` are what the model calls its classes, and `labels` what the task calls its own. Where they are not the same
    words, classes are taken in the order of their numbers, which is logged.
    """
    of_model = [name.casefold() for name in names]
    of_task = [label.casefold() for label in labels]
    if sorted(of_model) != sorted(of_task) or len(set(of_model)) < len(of_model):
        log.info(
            "the model %s calls its classes %s; they are taken for %s, in this order",
            model,
            ", ".join(names),
            ", ".join(labels),
        )
        return None
    order = [of_model.index(label) for label in of_task]
    return None if order == list(range(len(order))) else order


def _check_weights(loaded: Mapping[str, Any], encoder: str, as_is: bool, model: str) -> None:
    """Raise UserError for a model with weights that are missing or of another shape, but for the head that is trained.

    `loaded` is what transformers tells about them: it fills such weights with random numbers. `encoder` is the first
    part of the names of all weights but those of the head. A pooler stands between the two, and is trained, too.
    """
    unfit = {str(entry[0] if isinstance(entry, (tuple, list)) else entry) for entry in loaded["mismatched_keys"]}
    unfit |= set(loaded["missing_keys"])
    if not unfit:
        return
    shown = ", ".join(sorted(unfit)[:3])
    if as_is:
        raise UserError(
            f"--model {model} --as-is: it cannot classify yet, as it lacks the weights {shown}, or has others there;"
            " leave --as-is out to train it"
        )
    inside = sorted(name for name in unfit if name.startswith(f"{encoder}.") and "pooler" not in name)
    if inside:
        raise UserError(
            f"--model {model}: the weights do not fit its configuration, as {', '.join(inside[:3])} are missing or of"
            " another size; save the model again with save_pretrained"
        )
    log.info("the model %s starts from random weights in %s", model, shown)


def _query_type(config: Any, tokenizer: SubwordTokenizer) -> int:
    """Return the token type of the second text; 0 for a model that has one type only."""
    types = getattr(config, "type_vocab_size", 0) or 0
    return tokenizer.query_type if types > tokenizer.query_type else 0
