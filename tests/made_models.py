"""Folders of small models with random weights, as transformers writes them, for tests without a network."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

WORDS = sorted({*"abcdefghijklmnopqrstuvwxyz", "the", "film", "good", "bad", "mary", "john", "where", "went", "to"})
_OF_BERT = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_OF_ROBERTA = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def bert(folder: Path, longest: int = 64) -> Path:
    """A BERT, which tells the two texts of a pair apart by their token types."""
    names = [
        "[PAD]",
        *WORDS,
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    ]
    numbers = {name: number for number, name in enumerate(names)}
    words = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, numbers[name]) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **_OF_BERT)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    config = BertConfig(vocab_size=len(names) + 7, max_position_embeddings=longest, pad_token_id=0, **_SIZES)
    return _saved(BertForSequenceClassification(config), folder)


def roberta(folder: Path, mask: bool = True) -> Path:
    """A RoBERTa without a head for classification, whose padding is number 1 and whose mask is the last one."""
    names = ["<s>", "<pad>", "</s>", "<unk>", *WORDS, "<mask>"]
    numbers = {name: number for number, name in enumerate(names)}
    words = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    named = dict(_OF_ROBERTA) if mask else {name: value for name, value in _OF_ROBERTA.items() if name != "mask_token"}
    PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(names), max_position_embeddings=66, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        type_vocab_size=1, **_SIZES,
    )  # fmt: skip
    return _saved(RobertaForMaskedLM(config), folder)


def gpt2(folder: Path) -> Path:
    """A decoder."""
    roberta(folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    return _saved(GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=64, n_embd=16, n_layer=1, n_head=2)), folder)


def _saved(model: torch.nn.Module, folder: Path) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # away from the linear regime, so that the measures differ
    model.save_pretrained(folder)
    return folder
