"""The two tokenizers, in the files FLUX.1 ships: a sentencepiece model for T5, a
byte-level BPE for CLIP. Every caption word is one token; other words fall back
to letters. They are built directly rather than trained, so that they hold
exactly the words of the captions and are the same on every machine.
"""

import json
import re
import string
from collections import Counter
from pathlib import Path

T5_LENGTH = 32  # model_max_length: the text length programs should use by default
CLIP_LENGTH = 77
T5_PAD, T5_EOS, T5_UNK = "<pad>", "</s>", "<unk>"
CLIP_BOS, CLIP_EOS = "<|startoftext|>", "<|endoftext|>"
LETTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits + "-',.!?"
CLIP_WORD = re.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", re.I)


def write_json(path, value):
    text = json.dumps(value, indent=2, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


# ---------------------------------------------------------------- T5

def t5_pieces(words):
    """(piece, score, special): words beat letters, since log-probabilities add up."""
    pieces = [(T5_PAD, 0.0, True), (T5_EOS, 0.0, True), (T5_UNK, 0.0, True)]
    pieces += [("▁" + w, -2.0 - 0.001 * i, False) for i, w in enumerate(words)]
    return pieces + [(c, -12.0, False) for c in "▁" + LETTERS]


def write_spiece(path, pieces):
    from sentencepiece import sentencepiece_model_pb2 as pb

    model = pb.ModelProto()
    kinds = pb.ModelProto.SentencePiece
    for piece, score, special in pieces:
        kind = kinds.CONTROL if special else kinds.NORMAL
        if piece == T5_UNK:
            kind = kinds.UNKNOWN
        model.pieces.add(piece=piece, score=score, type=kind)
    spec = model.trainer_spec
    spec.model_type, spec.vocab_size = pb.TrainerSpec.UNIGRAM, len(pieces)
    spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = 0, 1, 2, -1
    spec.pad_piece, spec.eos_piece, spec.unk_piece = T5_PAD, T5_EOS, T5_UNK
    # Identity: transformers drops a sentencepiece character map, and then the two differ.
    norm = model.normalizer_spec
    norm.name, norm.precompiled_charsmap = "identity", b""
    norm.add_dummy_prefix = norm.remove_extra_whitespaces = norm.escape_whitespaces = True
    Path(path).write_bytes(model.SerializeToString())


def write_t5_json(path, pieces):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    tok = Tokenizer(models.Unigram([(p, s) for p, s, _ in pieces], unk_id=2))
    tok.add_special_tokens([T5_PAD, T5_EOS, T5_UNK])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")])
    tok.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tok.post_processor = processors.TemplateProcessing(
        single=f"$A {T5_EOS}", pair=f"$A {T5_EOS} $B {T5_EOS}", special_tokens=[(T5_EOS, 1)])
    tok.save(str(path))


def write_t5(folder, words):
    folder.mkdir(parents=True, exist_ok=True)
    pieces = t5_pieces(words)
    write_spiece(folder / "spiece.model", pieces)
    write_t5_json(folder / "tokenizer.json", pieces)
    special = {"eos_token": T5_EOS, "unk_token": T5_UNK, "pad_token": T5_PAD}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "T5Tokenizer", "model_max_length": T5_LENGTH, **special,
        "extra_ids": 0, "additional_special_tokens": [], "legacy": False,
        "clean_up_tokenization_spaces": True})


# ---------------------------------------------------------------- CLIP

def byte_symbols():
    """GPT-2's printable character for every byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    table = {b: chr(b) for b in shown}
    table.update({b: chr(256 + i) for i, b in enumerate(hidden)})
    return [table[b] for b in range(256)]


SYMBOLS = byte_symbols()


def split_word(word):
    symbols = [SYMBOLS[b] for b in word.encode()]
    return (*symbols[:-1], symbols[-1] + "</w>")


def merge_pair(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        if symbols[i:i + 2] == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return tuple(out)


def learn_merges(words):
    """Plain BPE, run until every word is one symbol."""
    split, merges = [split_word(w) for w in words], []
    while True:
        counts = Counter(pair for s in split for pair in zip(s, s[1:]))
        if not counts:
            return merges
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        split = [merge_pair(s, best) for s in split]


def clip_vocab(merges):
    """CLIP's order: bytes, bytes that end a word, merges, start, end (the highest id)."""
    tokens = SYMBOLS + [s + "</w>" for s in SYMBOLS]
    tokens += [a + b for a, b in merges] + [CLIP_BOS, CLIP_EOS]
    return {t: i for i, t in enumerate(dict.fromkeys(tokens))}


def write_clip(folder, words):
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges(sorted({w.lower() for w in words}))
    write_json(folder / "vocab.json", clip_vocab(merges))
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": CLIP_BOS, "eos_token": CLIP_EOS,
               "unk_token": CLIP_EOS, "pad_token": CLIP_EOS}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": CLIP_LENGTH, **special,
        "do_lower_case": True, "errors": "replace", "add_prefix_space": False,
        "clean_up_tokenization_spaces": False})


# ---------------------------------------------------------------- reference encoders

class T5Reference:
    """Ids straight from the sentencepiece file."""

    def __init__(self, folder):
        import sentencepiece
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))

    def __call__(self, text):
        return self.model.encode(text) + [self.model.eos_id()]


class ClipReference:
    """Textbook BPE over vocab.json and merges.txt."""

    def __init__(self, folder):
        self.vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
        self.rank = {tuple(line.split()): i for i, line in enumerate(lines)}

    def word(self, word):
        symbols = split_word(word)
        while True:
            known = [p for p in zip(symbols, symbols[1:]) if p in self.rank]
            if not known:
                return [self.vocab[s] for s in symbols]
            symbols = merge_pair(symbols, min(known, key=self.rank.get))

    def __call__(self, text):
        words = CLIP_WORD.findall(text.lower())
        ids = [i for w in words for i in self.word(w)]
        return [self.vocab[CLIP_BOS], *ids, self.vocab[CLIP_EOS]]


def check_tokenizers(folder, texts):
    """transformers must give the ids that the shipped files' own formats define."""
    from transformers import CLIPTokenizer, T5TokenizerFast

    pairs = [(T5Reference(folder / "tokenizer_2"),
              T5TokenizerFast.from_pretrained(folder / "tokenizer_2")),
             (ClipReference(folder / "tokenizer"),
              CLIPTokenizer.from_pretrained(folder / "tokenizer"))]
    for reference, tok in pairs:
        for text, ids in zip(texts, tok(texts).input_ids):
            assert reference(text) == ids, (type(tok).__name__, text, reference(text), ids)
