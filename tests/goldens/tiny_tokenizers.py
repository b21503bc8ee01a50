"""Small CLIP and T5 tokenizers for the golden folders, trained on a few made-up sentences, deterministic.

cfg["tokens"]: clip_merges, clip_len, clip_pad, specials_first; spm_vocab, spm_norm (a sentencepiece rule name, or "rules": a small
charsmap of our own), extra_ids.
"""
import functools
import io
import json
import os
import random
import tempfile
from collections import Counter

import sentencepiece
from transformers import CLIPTokenizer, T5Tokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
WORDS = {
    "a": "small old bright blue red green golden wooden quiet lovely strange winter morning painted".split(),
    "n": "fox river castle bridge lantern garden teapot mountain robot lighthouse forest harbour kite café".split(),
    "p": "in near under above behind beside over through".split(),
    "s": "watercolor photograph sketch painting drawing oil on canvas, highly detailed; 35mm film. It's".split(),
}
RULES = {  # source -> target; full width, ligature, no-break space, composition, one deletion
    "\u00a0": " ", "\u3000": " ", "\t": " ", "\n": " ", "\u200b": " ", "\u2581": " ", "\ufb01": "fi", "\ufb02": "fl",
    "\u2160": "I", "\u00bd": "1/2", "e\u0301": "\u00e9", "a\u0308": "\u00e4", "\u212b": "\u00c5", "\u00ad": "", "\u2026": "...",
    **{chr(0xFF01 + i): chr(0x21 + i) for i in range(94)},
}


def sentences(n=400):
    r = random.Random(12)
    pick = lambda k: r.choice(WORDS[k])
    out = [f"a {pick('a')} {pick('n')} {pick('p')} the {pick('a')} {pick('n')}, {' '.join(r.sample(WORDS['s'], 3))}"
           for _ in range(n)]
    return out + ["The quick brown fox jumps over the lazy dog 0123456789!", "(what is it?) 'we'll see' - \"é ä Å\" 1/2"]


@functools.cache
def spiece(vocab, norm):
    """serialized sentencepiece unigram model with ids <pad> 0, </s> 1, <unk> 2"""
    kw = {"normalization_rule_name": norm}
    with tempfile.TemporaryDirectory() as d:
        if norm == "rules":
            path = os.path.join(d, "rules.tsv")
            with open(path, "w") as f:
                for a, b in RULES.items():
                    f.write(" ".join("%X" % ord(c) for c in a) + "\t" + " ".join("%X" % ord(c) for c in b) + "\n")
            kw = {"normalization_rule_tsv": path}
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences()), model_writer=model, model_type="unigram", vocab_size=vocab,
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
            hard_vocab_limit=False, num_threads=1, minloglevel=2, character_coverage=1.0, **kw)
    from sentencepiece import sentencepiece_model_pb2 as pb
    proto = pb.ModelProto.FromString(model.getvalue())
    proto.trainer_spec.Clear()  # paths and training options are of no use to a reader
    proto.trainer_spec.unk_id, proto.trainer_spec.bos_id, proto.trainer_spec.eos_id, proto.trainer_spec.pad_id = 2, -1, 1, 0
    proto.trainer_spec.model_type = pb.TrainerSpec.UNIGRAM
    proto.trainer_spec.pad_piece, proto.trainer_spec.eos_piece, proto.trainer_spec.unk_piece = "<pad>", "</s>", "<unk>"
    proto.normalizer_spec.normalization_rule_tsv = ""
    return proto.SerializeToString()


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes"""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    return dict(zip(keep + rest, [chr(b) for b in keep] + [chr(256 + i) for i in range(len(rest))]))


@functools.cache
def bpe(merges, specials_first=False):
    """(vocab, merges) of a CLIP byte-pair vocabulary: 512 byte symbols, the merges, the two specials (last in real ones)"""
    table = byte_alphabet()
    symbols = sorted(table.values())
    counts = Counter(w for s in sentences() for w in s.lower().replace(",", " ,").replace(".", " .").split())
    words = {tuple([*(table[b] for b in w.encode()[:-1]), table[w.encode()[-1]] + "</w>"]): n for w, n in counts.items()}
    rules = []
    for _ in range(merges):
        pairs = Counter()
        for w, n in words.items():
            for p in zip(w, w[1:]):
                pairs[p] += n
        best = min(pairs, key=lambda p: (-pairs[p], p))
        rules.append(best)
        new = {}
        for w, n in words.items():
            out, i = [], 0
            while i < len(w):
                hit = w[i:i + 2] == best
                out.append(w[i] + w[i + 1] if hit else w[i])
                i += 2 if hit else 1
            new[tuple(out)] = n
        words = new
    vocab = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in rules]
    vocab = [BOS, EOS] + vocab if specials_first else vocab + [BOS, EOS]
    return {s: i for i, s in enumerate(vocab)}, rules


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=0 if len(value) > 50 else 2, ensure_ascii=False)
        f.write("\n")


def write_raw(cfg, root):
    """tokenizer/ and tokenizer_2/ as vocab.json + merges.txt + spiece.model and their small configs"""
    k = cfg["tokens"]
    vocab, merges = bpe(k["clip_merges"], k.get("specials_first", False))
    for name in ("tokenizer", "tokenizer_2"):
        folder = os.path.join(root, name)
        os.makedirs(folder, exist_ok=True)
        for f in os.listdir(folder):
            os.remove(os.path.join(folder, f))
    one, two = os.path.join(root, "tokenizer"), os.path.join(root, "tokenizer_2")
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": k.get("clip_pad", EOS)}
    write_json(os.path.join(one, "vocab.json"), vocab)
    with open(os.path.join(one, "merges.txt"), "w") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    write_json(os.path.join(one, "special_tokens_map.json"), special)
    write_json(os.path.join(one, "tokenizer_config.json"),
               {"tokenizer_class": "CLIPTokenizer", "model_max_length": k["clip_len"], "do_lower_case": True, **special})
    with open(os.path.join(two, "spiece.model"), "wb") as f:
        f.write(spiece(k["spm_vocab"], k["spm_norm"]))
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    write_json(os.path.join(two, "special_tokens_map.json"), special)
    write_json(os.path.join(two, "tokenizer_config.json"),
               {"tokenizer_class": "T5Tokenizer", "model_max_length": k.get("t5_len", 512), "extra_ids": k["extra_ids"],
                **special})


def tokenizers(cfg):
    with tempfile.TemporaryDirectory() as d:
        write_raw(cfg, d)
        return (CLIPTokenizer.from_pretrained(os.path.join(d, "tokenizer")),
                T5Tokenizer.from_pretrained(os.path.join(d, "tokenizer_2")))


def sizes(cfg):
    """(CLIP vocabulary, T5 vocabulary, ids of the CLIP specials)"""
    clip, t5 = tokenizers(cfg)
    return len(clip), len(t5), {"bos": clip.bos_token_id, "eos": clip.eos_token_id, "pad": clip.pad_token_id}
