"""A model's tokenizer and chat template, from the files beside its weights or from GGUF metadata.

Byte-pair encoders come with the name of their pre-tokenizer; SentencePiece's with a score for each piece, from which
the merges follow: two pieces merge where their joined text is a piece, those of the highest score first. Templates are
rendered by `transformers`, in its sandbox.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rolecall.serving.llm.gguf import GgufFile, ModelFileError

_CONTROL, _USER_DEFINED = 3, 4  # token types that are matched as a whole, before anything else
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_NAMES = ("gpt-2", "default", "smollm", "llama-bpe")


def from_folder(folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer in a model's folder; None where there is none. No code of the folder is run."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        return None
    try:
        made: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises Exception itself for a file it cannot read
        raise ModelFileError(f"{folder}: the tokenizer cannot be read: {error}") from error
    return made


def from_gguf(file: GgufFile) -> PreTrainedTokenizerBase:
    """The tokenizer in a GGUF file's metadata. Raises ModelFileError for a kind that is not read here."""
    kind = file.value("tokenizer.ggml.model", str)
    pieces = _texts(file, "tokenizer.ggml.tokens")
    if kind == "gpt2":
        made, begins = _byte_pairs(file, pieces), file.value("tokenizer.ggml.pre", str, "default") == "llama-bpe"
    elif kind == "llama":
        made, begins = _sentence_pieces(file, pieces), True
    else:
        raise ModelFileError(f"{file.path}: got tokenizer.ggml.model {kind!r}; read: 'gpt2', 'llama'")
    types = file.value("tokenizer.ggml.token_type", list, [1] * len(pieces))
    if len(types) != len(pieces):
        raise ModelFileError(f"{file.path}: got {len(types)} token types for {len(pieces)} tokens")
    whole = [(p, t) for p, t in zip(pieces, types, strict=True) if t in (_CONTROL, _USER_DEFINED)]
    made.add_tokens([AddedToken(p, special=t == _CONTROL, normalized=False) for p, t in whole])
    names = {name: _named(file, name, pieces) for name in ("bos", "eos", "unknown", "padding")}
    bos = names["bos"]
    if bos is not None and file.value("tokenizer.ggml.add_bos_token", bool, begins):
        made.post_processor = processors.Sequence(
            [*([made.post_processor] if made.post_processor else []), _with_first(bos, pieces.index(bos))]
        )
    fast: Any = PreTrainedTokenizerFast  # untyped
    tokenizer: PreTrainedTokenizerBase = fast(
        tokenizer_object=made,
        bos_token=bos,
        eos_token=names["eos"],
        unk_token=names["unknown"],
        pad_token=names["padding"],
        chat_template=file.value("tokenizer.chat_template", str, "") or None,
        clean_up_tokenization_spaces=False,
    )
    return tokenizer


def _byte_pairs(file: GgufFile, pieces: list[str]) -> Tokenizer:
    pre = file.value("tokenizer.ggml.pre", str, "default")
    if pre not in _NAMES:
        raise ModelFileError(f"{file.path}: got tokenizer.ggml.pre {pre!r}; read: {', '.join(_NAMES)}")
    merges = [tuple(merge.split(" ")) for merge in _texts(file, "tokenizer.ggml.merges")]
    pairs: list[Any] = [pair for pair in merges if len(pair) == 2]
    if len(pairs) != len(merges):
        raise ModelFileError(f"{file.path}: got a merge that is no pair of pieces")
    made = Tokenizer(_model(file, pieces, pairs, ignore_merges=pre == "llama-bpe"))
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre != "llama-bpe")]
    if pre == "smollm":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    if pre == "llama-bpe":
        steps.insert(0, pre_tokenizers.Split(Regex(_LLAMA_3), "isolated"))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


def _sentence_pieces(file: GgufFile, pieces: list[str]) -> Tokenizer:
    scores = file.value("tokenizer.ggml.scores", list)
    if len(scores) != len(pieces):
        raise ModelFileError(f"{file.path}: got {len(scores)} scores for {len(pieces)} tokens")
    rank = {piece: number for number, piece in enumerate(pieces)}
    found = [
        (-float(score), rank[piece[:cut]], rank[piece[cut:]], (piece[:cut], piece[cut:]))
        for piece, score in zip(pieces, scores, strict=True)
        for cut in range(1, len(piece))
        if piece[:cut] in rank and piece[cut:] in rank
    ]
    unknown = _named(file, "unknown", pieces)
    merges = [pair for _, _, _, pair in sorted(found)]
    made = Tokenizer(_model(file, pieces, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    space = "\u2581"
    prefix = file.value("tokenizer.ggml.add_space_prefix", bool, True)
    made.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(space)] if prefix else []), normalizers.Replace(" ", space)]
    )
    ends: list[Any] = [decoders.Strip(" ", 1, 0)] if prefix else []
    made.decoder = decoders.Sequence([decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), *ends])
    return made


def _model(file: GgufFile, pieces: list[str], merges: list[Any], **options: Any) -> models.BPE:
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        raise ModelFileError(f"{file.path}: got the same token twice")
    try:
        return models.BPE(vocab=vocabulary, merges=merges, **options)
    except Exception as error:  # the tokenizers library raises Exception itself for a merge of unknown pieces
        raise ModelFileError(f"{file.path}: the tokenizer cannot be built: {error}") from error


def _with_first(token: str, number: int) -> Any:
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, number)]
    )


def _texts(file: GgufFile, key: str) -> list[str]:
    found = file.value(key, list)
    texts = [x for x in found if isinstance(x, str)]
    if len(texts) != len(found):
        raise ModelFileError(f"{file.path}: {key} holds something other than texts")
    return texts


def _named(file: GgufFile, name: str, pieces: list[str]) -> str | None:
    number = file.value(f"tokenizer.ggml.{name}_token_id", int, -1)
    if number >= len(pieces):
        raise ModelFileError(f"{file.path}: got {name} token {number} of {len(pieces)}")
    return pieces[number] if number >= 0 else None
