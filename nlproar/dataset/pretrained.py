"""Pretrained models: where their files are, and what identifies them.

A model is a folder as transformers writes it: `config.json`, weights in safetensors, and the files of a tokenizer. It
is named by its path, or by its name on the Hugging Face hub, from where its files are brought into `raw/models/` of the
persistent directory once. A model is identified by a checksum of its weights and its configuration, so it does not
matter where it lies, and a run that is done needs none of the files.

Weights are read from safetensors only, as a pickle can run code, and code that comes with a model is never run.
Imports neither torch nor transformers by itself.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlproar import storage
from nlproar.errors import UserError
from nlproar.fingerprints import sha256
from nlproar.paths import as_utf8, user_path

if TYPE_CHECKING:
    from nlproar.run.layout import Layout

log = logging.getLogger(__name__)

SHORTEST = 8  # tokens of an observation that a model must take
TINY = "tiny"  # the model that is made and trained here, without any file

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_SHARDS = "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
)
_FETCHED = (_CONFIG, _WEIGHTS, _SHARDS, "model-*.safetensors", *_TOKENIZER)
_IDENTIFIED = re.compile(r".+@[0-9a-f]{12}")
_NAME_ON_THE_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")

# Entries of config.json that say where a model comes from and not what it computes.
_OF_NO_CONSEQUENCE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")

# Models whose positions are counted from the number of the padding token on, so that the first ones are not used.
_POSITIONS_AFTER_PADDING = ("camembert", "data2vec-text", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta",
                            "xlm-roberta-xl", "xmod")  # fmt: skip
_NO_LIMIT = 10**6  # tokenizers that know no limit give a number above this

# Errors of a download that come from this machine, and not from the network.
_OF_THE_DISK = (
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EROFS,
)  # fmt: skip


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model: what identifies it, and what encoding must know of it."""

    identity: str  # "roberta-base@0123456789ab": its name, and a checksum of weights and configuration
    tokenizer: str  # checksum of the files of the tokenizer
    longest: int  # tokens that it takes, special ones included


_located: dict[tuple[str, str, tuple[Any, ...]], Pretrained] = {}  # a study resolves thousands of runs of one model


def is_identified(name: str) -> bool:
    """Return whether `name` is the identity of a model, as a record has it, and not a name or path."""
    return _IDENTIFIED.fullmatch(name) is not None and not Path(name).exists()


def locate(named: str, layout: Layout) -> tuple[Pretrained, Path | None]:
    """Return the model that a user calls `named`, and its folder.

    A model of the hub is downloaded if it was never there. The folder is None where it is gone and the model was
    identified before: whatever is done can then be read, and nothing new can be computed until it is there again, see
    `fetch`. Raises UserError where there is no model, or one that cannot be used.
    """
    path = Path(user_path("--model", named))
    is_path = path.is_dir()
    folder = path if is_path else _folder_of_hub(named, layout)
    if not (folder / _CONFIG).is_file():
        for name in (named, str(path.absolute())):
            known = _noted(_note(layout, name))
            if known is not None:
                return known, None
        if path.exists():
            raise UserError(f"--model {named}: this is not a model, as it has no {_CONFIG}; name a folder that has one")
        _fetch(named, folder)
    files = _files(named, folder)
    state = tuple((file, os.stat(folder / file).st_mtime_ns, os.stat(folder / file).st_size) for file in files)
    known_as = (str(layout.root), str(folder.absolute()), state)
    if known_as in _located:
        return _located[known_as], folder
    name = Path(os.path.abspath(path)).name if is_path else named  # the folder that ".." leads to
    found = _identify(named, name, folder, layout)
    _located[known_as] = found
    note = _note(layout, str(path.absolute()) if is_path else named)
    if found != _noted(note):
        _keep(note, found)
    return found, folder


def fetch(named: str, layout: Layout) -> None:
    """Download a model of the hub if its folder is missing, even if it was there before.

    Raises UserError where it cannot be had. Nothing is done for `tiny`, and for a folder.
    """
    folder = _folder_of_hub(named, layout)
    if named == TINY or Path(named).is_dir() or (folder / _CONFIG).is_file():
        return
    _fetch(named, folder)


def _folder_of_hub(named: str, layout: Layout) -> Path:
    """Return where a model of the hub lies in the persistent directory."""
    return layout.raw / "models" / named.replace("/", "--")


def _files(named: str, folder: Path) -> list[str]:
    """Return the names of the files of a model, sorted. Raises UserError for one that is a link to nowhere."""
    found = []
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not file.exists():
            if any(file.match(pattern) for pattern in _FETCHED):
                advice = "copy the folder with its files (cp -rL)"
                raise UserError(f"--model {named}: {file.name} is a link that leads nowhere; {advice}")
            continue
        found.append(file.name)
    return found


def _note(layout: Layout, name: str) -> Path:
    """Return where it is noted what identifies the model of this name, or absolute path."""
    return layout.cache / "models" / f"{storage.digest(name)[:16]}.json"


def _identify(named: str, name: str, folder: Path, layout: Layout) -> Pretrained:
    config = _read_json(named, folder / _CONFIG)
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"--model {named}: this is not a model, as its {_CONFIG} names no model_type; check the folder")
    checksums = {file: sha256(folder / file, layout.cache) for file in _weights(named, folder)}
    of_config = {key: value for key, value in config.items() if key not in _OF_NO_CONSEQUENCE}
    identity = storage.digest({"weights": checksums, "config": of_config})[:12]
    present = [file for file in _TOKENIZER if (folder / file).is_file()]
    if not present:
        raise UserError(f"--model {named}: its tokenizer is missing; put tokenizer.json beside its {_CONFIG}")
    tokenizer = storage.digest({file: sha256(folder / file, layout.cache) for file in present})[:16]
    return Pretrained(f"{as_utf8(name)}@{identity}", tokenizer, _longest(named, folder, config))


def _weights(named: str, folder: Path) -> list[str]:
    """Return the names of the files of weights. Raises UserError if there are none but pickles."""
    if (folder / _WEIGHTS).is_file():
        return [_WEIGHTS]
    if (folder / _SHARDS).is_file():
        weight_map = _read_json(named, folder / _SHARDS).get("weight_map")
        if not isinstance(weight_map, dict):
            raise UserError(f"--model {named}: {_SHARDS} has no weight_map; copy the folder again")
        files = sorted(set(map(str, weight_map.values())))
        for file in files:
            if not (folder / file).is_file():
                raise UserError(f"--model {named}: {file} is missing, which {_SHARDS} names; copy the whole folder")
        return files
    for file in _PICKLES:
        if (folder / file).is_file():
            raise UserError(
                f"--model {named}: its weights are a pickle ({file}), which can run code and is not read; save the"
                f" model as {_WEIGHTS}"
            )
    raise UserError(f"--model {named}: there are no weights in it; put {_WEIGHTS} beside its {_CONFIG}")


def _longest(named: str, folder: Path, config: dict[str, Any]) -> int:
    """Return how many tokens the model takes, by its configuration and by that of its tokenizer."""
    limits = [_NO_LIMIT]
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        if config["model_type"] in _POSITIONS_AFTER_PADDING:
            padding = config.get("pad_token_id")
            positions -= (padding if isinstance(padding, int) else 1) + 1
        limits.append(positions)
    if (folder / "tokenizer_config.json").is_file():
        most = _read_json(named, folder / "tokenizer_config.json").get("model_max_length")
        if isinstance(most, int) and most > 0:
            limits.append(most)
    longest = min(limits)
    if longest < SHORTEST:
        raise UserError(
            f"--model {named}: by its files it takes at most {longest} tokens, and {SHORTEST} are needed; correct"
            " max_position_embeddings in config.json, or model_max_length in tokenizer_config.json"
        )
    return longest


def _read_json(named: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(storage.read_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"--model {named}: {path.name} is not JSON ({error}); copy the folder again") from error
    if not isinstance(content, dict):
        raise UserError(f"--model {named}: {path.name} is not a JSON object; copy the folder again")
    return content


def _noted(note: Path) -> Pretrained | None:
    """Return what an earlier process found out about a model; None if none did, or if the note is damaged."""
    try:
        content = json.loads(storage.read_bytes(note).decode())
        check = content.pop("check")
        found = Pretrained(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s is damaged (%r) and not used", note, error)
        return None
    return found if check == storage.digest(asdict(found)) else None


def _keep(note: Path, found: Pretrained) -> None:
    try:
        storage.write_json(note, {**asdict(found), "check": storage.digest(asdict(found))})
    except OSError as error:  # a cache that only others may write
        log.info("what identifies the model cannot be kept (%s)", error)


def _fetch(named: str, folder: Path) -> None:
    """Bring a model of the hub into `folder`, whole or not at all. Raises UserError where it cannot be had."""
    put = f"put {_CONFIG}, {_WEIGHTS} and the files of its tokenizer into {folder}"
    if _NAME_ON_THE_HUB.fullmatch(named) is None or named.startswith("."):
        raise UserError(f"--model {named}: there is no such folder; name one, {TINY}, or a model of the hub")
    with _locked(folder, named, put):
        if (folder / _CONFIG).is_file():
            return  # another process has brought it meanwhile
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"--model {named}: {folder} is incomplete; remove it, or {put}")
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        try:
            _download(named, temporary, put)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _download(named: str, place: Path, put: str) -> None:
    """Download a model of the hub to `place`. Raises UserError, which says what to `put` where, if there is none."""
    from huggingface_hub import snapshot_download

    is_offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    log.info("looking for the model %s on the Hugging Face hub", named)
    try:
        snapshot_download(
            named, allow_patterns=list(_FETCHED), local_dir=place, local_files_only=is_offline, max_workers=1
        )
    except Exception as error:  # what the network does comes as errors of several libraries
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            error.filename = error.filename or str(place)
            raise
        raise UserError(
            f"--model {named}: it is not a folder, and the Hugging Face hub gives no such model"
            f" ({'HF_HUB_OFFLINE is set' if is_offline else type(error).__name__}); {put}"
        ) from error
    if not (place / _CONFIG).is_file():
        raise UserError(f"--model {named}: the hub has no {_CONFIG} of it; {put}")
    if not (place / _WEIGHTS).is_file() and not (place / _SHARDS).is_file():
        raise UserError(
            f"--model {named}: the hub has no {_WEIGHTS} of it, and other weights are not read; choose another model,"
            f" or {put}"
        )


@contextmanager
def _locked(folder: Path, named: str, put: str) -> Iterator[None]:
    """Hold the lock of `folder`. Raises UserError where it cannot be written, as with a read-only `raw/`.

    `put` says what the user can do instead.
    """
    with ExitStack() as held:
        try:
            held.enter_context(storage.lock(folder))
        except OSError as error:
            raise UserError(
                f"--model {named}: it is not a folder, and it cannot be downloaded, as {folder.parent} cannot be"
                f" written to ({error.strerror}); {put}, or into any other folder and name that one"
            ) from error
        yield


# What needs transformers


def load_config(folder: str | Path, named: str) -> Any:
    """Return the configuration of the model in `folder`.

    Raises UserError for a kind of model that cannot be used: one that transformers does not know, decoders, and
    models of an encoder and a decoder.
    """
    with refused(named, "the configuration"):
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    check_kind(config, named)
    return config


def check_kind(config: Any, named: str) -> None:
    """Raise UserError for a model that is not an encoder with a head for classification."""
    from transformers.models.auto import modeling_auto as known

    kind = config.model_type
    if config.is_encoder_decoder:
        raise UserError(f"--model {named}: {kind} is an encoder with a decoder; choose an encoder, such as RoBERTa")
    generates = kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if getattr(config, "is_decoder", False) or (generates and kind not in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES):
        raise UserError(
            f"--model {named}: {kind} is a decoder, whose tokens see only what stands before them and which was not"
            " trained with a mask token; choose an encoder, such as RoBERTa"
        )
    if kind not in known.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise UserError(f"--model {named}: {kind} does not classify texts; choose an encoder, such as RoBERTa")


@contextmanager
def refused(named: str, what: str) -> Iterator[None]:
    """While this lasts, what transformers refuses is an error of the user's, in one line."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--model {named}: {what} cannot be read ({reason}); check the folder") from error
