#!/usr/bin/env python3
"""One-line bugs: reads those of mutants.txt and draws more at random, in the same form.

    tests/mutate.py --seed N [--count 30] [--only GLOB]    prints drawn rows
    tests/mutate.py --check                                every row of mutants.txt still fits its file

A row is three lines; OLD stands exactly once in FILE, or in line LINE of it:

    NAME | FILE[:LINE] | TEST ARGUMENT... [; TEST ...] | why
    - OLD
    + NEW

TEST is a name of tests/run.sh without its prefix; mutate_run.py knows how each is run. 'equivalent' instead of a test: an
edit that changes nothing a test could see, with the reason; it is not tried and does not count.
"""
import argparse
import fnmatch
import pathlib
import random
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIST = ROOT / "tests/mutants.txt"

# Where edits are drawn, with what share, and the tests that answer for the folder: quick ones first, the first that fails
# ends the trial.
AREAS = [
    ("cpu kernels", 6, [
        ("kernels/cpu/linear.c", "golden h4dev; ops linear"),
        ("kernels/cpu/gemm.c", "ops conv2d; golden h4dev; ops linear; cpu_exact"),
        ("kernels/cpu/conv.c", "ops conv2d; cpu_exact"),
        ("kernels/cpu/attention.c", "ops attention*; ops@SSE41 attention*"),
        ("kernels/cpu/attention_pack.c", "ops attention*"),
        ("kernels/cpu/softmax.c", "ops@SSE41 attention*"),
        ("kernels/cpu/softmax_avx2.c", "ops attention*"),
        ("kernels/cpu/norm.c", "ops *norm*"),
        ("kernels/cpu/rows.c", "ops gate* axpy act* glu embed attention_*"),
        ("kernels/cpu/vae_rows.c", "ops row_stats group_norm upsample2x to_rgb8"),
        ("kernels/cpu/copy.c", "ops copy count*"),
        ("kernels/cpu/tile_generic.c", "ops conv2d; ops@SSE41 conv2d"),
    ]),
    ("cuda kernels", 4, [
        ("kernels/cuda/scatter.cu", "scatter"),
        ("kernels/cuda/order.cuh", "scatter"),
        ("kernels/cuda/heads.cuh", "kernels qk_norm_rope; scatter"),
        ("kernels/cuda/norm.cu", "kernels *norm* qk_norm_rope"),
        ("kernels/cuda/rows.cu", "kernels gate_add axpy act* glu embed attention_*"),
        ("kernels/cuda/copy.cu", "kernels copy count*"),
        ("kernels/cuda/softmax.cu", "kernels attention*"),
        ("kernels/cuda/vae_rows.cu", "kernels row_stats group_norm upsample2x to_rgb8"),
        ("kernels/cuda/finish.cu", "kernels linear"),
        ("kernels/cuda/draw.cu", "machine"),
        ("kernels/cuda/archs.c", "machine"),
    ]),
    ("parallel", 5, [
        ("parallel/layout.c", "layout"),
        ("parallel/mesh.c", "layout"),
        ("parallel/comm_way.c", "way"),
        ("parallel/comm_fit.c", "way"),
        ("parallel/exchange.c", "shard 3; shard 4; mesh 4 h24dev"),
        ("parallel/ulysses.c", "shard 3; shard 4; mesh 4 h24dev"),
        ("parallel/ring.c", "shard 3; shard 4; mesh 4 h24dev"),
        ("parallel/window.c", "shard 3; shard 4"),
        ("parallel/comm_collective.c", "comm 3; comm 5; comm 8; comm 2; comm 1"),
        ("parallel/store.c", "store; golden h4dev h10shards; mesh 3 h24dev"),
        ("parallel/store_declare.c", "store; golden h4dev h10shards; checkpoint"),
        ("parallel/dense.c", "golden h4dev"),
    ]),
    ("loaders", 4, [
        ("runtime/io/safetensors.c", "checkpoint; fuzz_replay"),
        ("runtime/io/checkpoint.c", "checkpoint; golden h10shards; fuzz_replay"),
        ("runtime/io/component.c", "checkpoint; golden h10shards; fuzz_replay"),
        ("runtime/io/json.c", "io; checkpoint; fuzz_replay"),
        ("runtime/io/npy.c", "io; golden h4dev"),
        ("runtime/io/png.c", "png"),
        ("runtime/io/png_pixels.c", "png"),
        ("runtime/io/png_read.c", "png"),
        ("runtime/io/synthetic.c", "io"),
        ("runtime/core/convert.c", "core"),
        ("runtime/core/tensor.c", "core; backend; golden h4dev"),
    ]),
    ("tokenizers", 5, [
        ("runtime/text/clip_encoder.c", "golden h4dev; configs; golden"),
        ("runtime/text/t5_encoder.c", "golden h4dev; configs; golden"),
        ("runtime/text/kept.c", "kept"),
        ("runtime/text/*.c", "tokenizer_files; tokenizers; token_settings"),
    ]),
    ("batches", 2, [
        ("launch/batch/jobs.c", "jobs; fuzz_replay"),
        ("launch/batch/lines.c", "jobs; fuzz_replay"),
    ]),
    ("scheduler", 3, [
        ("runtime/sample/noise.c", "noise"),
        ("runtime/sample/schedule.c", "schedule; configs"),
        ("runtime/sample/latents.c", "golden h4dev h5odd"),
        ("runtime/dit/config.c", "golden h4dev; configs; golden"),
        ("runtime/dit/*.c", "golden h4dev h6schnell h24dev h5odd; mesh 3 h24dev; mesh 2 h24dev"),
    ]),
    ("vae", 4, [
        ("parallel/halo.c", "slabs 3; slabs 5; encoder 3 h24dev"),
        ("runtime/vae/config.c", "golden h4dev; configs; golden"),
        ("runtime/vae/*.c", "golden h4dev h6schnell h5odd; encoder 3 h24dev; encoder 2 h6schnell; mesh 4 h24dev"),
    ]),
]

# Never drawn: an edit there changes speed, words or clean-up and no result, so that no test can or should see it.
LEFT_OUT = [
    ("kernels/cpu/*", r"avx512|->isa <", "instruction sets that many processors do not have (trials run with AVX2)"),
    ("kernels/cpu/*", r"grain|16384", "how finely work is dealt to threads: results do not depend on it"),
    ("kernels/cpu/*", r"operand == FX_BF16|\bpairs\b|^pack_keys_bf16$|^pack_pairs$|uint16_t \*\)(dst|src)", "bf16 tiles, the same"),
    ("kernels/cpu/gemm.c", r"2e5|be->threads|job\.(cols|rows|row_blocks|col_blocks) = |ROWS|COLS", "block sizes: any gives the same chain over k"),
    ("kernels/cpu/gemm.c", r"1 << 24|CHUNK \+ \(operand", "another path with the same result; a stride off the power of two"),
    ("kernels/cpu/attention.c", r"fitting|wanted|65536", "how many heads are packed at a time"),
    ("kernels/cpu/tile_generic.c", r"m - i <", "a row more in the scratch, which nobody reads"),
    ("kernels/cpu/copy.c", r"piece|32768|one long run", "how a long run is cut for threads"),
    ("kernels/cpu/vae_rows.c", r"8192 /|LANES", "how finely work is dealt to threads, channels side by side"),
    ("kernels/cuda/*", r"THREADS, 0,|, 1, 0, |CTAS", "shared memory that nobody uses; how finely work is dealt to a device"),
    ("kernels/cuda/*", r"\+ (THREADS|per_cta|[A-Z_]+) - 1\) /", "a CTA more, which finds nothing to do"),
    ("kernels/cuda/scatter.cu", r"turn|TURN", "which rank is stored to first"),
    ("launch/batch/lines.c", r"newline = have|block\[", "newlines given out become zero bytes, so none lies behind the end; a block size"),
    ("launch/batch/jobs.c", r"kept = text", "where a message is shortened"),
    ("runtime/text/clip_normalize.c", r"int state", "only read where clusters are asked for"),
    ("kernels/cpu/softmax*", r"base = top", "any finite number will do: the sums are 0"),
    ("*", r"fx_comm_set_(part|phase)", "what messages say of a rank: sh_faults, which takes minutes, reads it"),
    ("parallel/store.c", r"x->order", "items of one size, in this order or another: all are loaded"),
    ("parallel/mesh.c", r"= gcd\(", "a divisor common to both, whichever comes first"),
    ("*", r"-?\d+e[4-9], |shift_terminal", "limits far above every value that is then allowed"),
    ("*", r"fx_comm_progress", "transfers get on earlier or later: the same data"),
    ("runtime/io/png_pixels.c", r"STRIP =|MOST_THREADS|\.room =|at_once", "how much is compressed at a time, and room for it"),
    ("*", r"\(fx_ticket\)\{-1, ", "no transfer: a slot of -1 says it all"),
    ("parallel/exchange.c", r"calloc|malloc", "room for lists, generous on purpose"),
    ("parallel/ring.c", r"step|PIECES", "pieces of heads, so that transfers get on"),
    ("parallel/comm_collective.c", r"grace|GRACE|tree|TREE", "patience, and the shape of a broadcast: data are the same"),
    ("parallel/store.c", r"SPLIT_BYTES|KEEP|tasks|staging|most|madvise|munmap", "which thread reads what, memory given back early"),
    ("parallel/store.c", r"double middle|capacity|const int r = ", "which rank of a node loads an item: all see the same block"),
    ("parallel/halo.c", r"capacity|sizeof", "room of a list that grows"),
    ("parallel/halo.c", r"k = 1; k < size", "a rank as its own peer: its borders are never rows of its own"),
    ("parallel/exchange.c", r"shape\[4\] =", "room of the send buffers"),
    ("parallel/store.c", r"s->(half|chunk)", "sizes of buffers on the way to a device: any gives the same block"),
    ("parallel/store.c", r"^(fx_store_)?owner$", "a guard against rounding; all ranks see the same block"),
    ("runtime/vae/*", r"^largest$", "room of two buffers: more than is needed shows in no picture"),
    ("runtime/text/strmap.c", r"\bh = |hash", "any hash finds the same, some slower"),
    ("*", r"capacity|->cap\b|\bcap\b|realloc|malloc|calloc", "room of buffers: AddressSanitizer's matter, not a result"),
    ("*", r"\bused\b|buf\[|char buf|char text\[|char wanted|char p\[|char full\[|char name\[|char why", "buffers for words"),
    ("*", r"double_blocks \+ 1|MAX_|_MAX\b|1 << (2\d|3\d)|16 <<", "limits far above every model"),
    ("runtime/dit/*", r"\.axis_dim = |return \(fx_", "the table of a published model: the synthetic one"),
    ("runtime/*", r"fx_(t5|clip|vae|dit)_config_(xxl|large|flux)", "the same"),
]
# Functions that only release, name or describe.
SILENT = re.compile(r"(^|_)(close|free|describe|name|text|str|names|shape_text|shape_names|gib|release|progress|found)$")


class Row:
    def __init__(self, name, path, line, test, why, old, new):
        self.name, self.path, self.line, self.test, self.why, self.old, self.new = name, path, line, test, why, old, new

    def __str__(self):
        at = f"{self.path}:{self.line}" if self.line else self.path
        return f"{self.name} | {at} | {self.test} | {self.why}\n- {self.old}\n+ {self.new}\n"

    def edit(self, text):
        """The file's text with the edit, or None when it does not fit."""
        lines = text.split("\n")
        if self.line:
            at = [self.line - 1] if self.line <= len(lines) and self.old in lines[self.line - 1] else []
        else:
            at = [i for i, line in enumerate(lines) for _ in range(line.count(self.old))]
        if len(at) != 1 or self.old == self.new:
            return None
        lines[at[0]] = lines[at[0]].replace(self.old, self.new, 1)
        return "\n".join(lines)

    def makes(self, other):
        """Is the listed edit `self` the drawn edit `other` (of a whole line)?"""
        return self.path == other.path and self.old in other.old and other.old.replace(self.old, self.new, 1) == other.new


def read_rows(path=LIST):
    rows, head, old = [], None, None
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if line.startswith("- ") and head:
            old = line[2:]
        elif line.startswith("+ ") and old is not None:
            name, where, test, why = head
            file, _, at = where.partition(":")
            rows.append(Row(name, file, int(at or 0), test, why, old, line[2:]))
            head = old = None
        elif line and not line.startswith("#"):
            head = [part.strip() for part in line.split(" | ")]
            if len(head) != 4:
                sys.exit(f"{path}:{number}: not a row")
    names = [r.name for r in rows]
    doubles = {n for n in names if names.count(n) > 1}
    if doubles:
        sys.exit(f"{path}: names twice: {' '.join(sorted(doubles))}")
    return rows


# ---- what of a file is code that matters ----

def blank(text):
    """text with everything that is no code replaced by blanks, at the same places."""
    keep = list(text)

    def wipe(begin, end):
        for i in range(begin, end):
            if keep[i] != "\n":
                keep[i] = " "

    for m in re.finditer(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', text, re.S):
        wipe(*m.span())
    code = "".join(keep)
    for m in re.finditer(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*|\b(?:static )?const char \*const \w+\[\] = \{[^;]*;", code, re.M):
        wipe(*m.span())
    for m in re.finditer(r"^(?:typedef )?enum [^;]*;|^(?:typedef )?struct \w* ?\{[^}]*\}[^;]*;", code, re.M):
        wipe(*m.span())
    for m in re.finditer(r"\b(_Static_assert|FX_FAIL|FX_MULTI|snprintf|FX_CHECK|refuse|not_implemented)\(", code):
        end = closing(code, m.end())
        begin = m.start()
        if m.group(1) == "FX_CHECK":
            why = re.search(r",\s*(FX_E\w+|\w+\.status)", code[m.end():end])
            if why and why.group(1) not in ("FX_ENOMEM", "FX_ESHAPE"):
                begin = m.end() + why.start()
        wipe(begin, end)
    return "".join(keep)


def closing(code, at):
    depth = 1
    while at < len(code) and depth:
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        at += 1
    return at


def functions(code):
    """Name of the function each line is in ('' outside)."""
    names, current = [], ""
    for line in code.split("\n"):
        head = re.match(r"^[A-Za-z_].*?(\w+)\(", line)
        if head and not line.endswith(";"):
            current = head.group(1)
        names.append(current)
        if line.startswith("}"):
            current = ""
    return names


# ---- edits ----

PAIRS = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
         "&&": "||", "||": "&&", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "<<": ">>", ">>": "<<", "|": "&", "&": "|"}


def number(rng, text):
    m = re.fullmatch(r"(0x[0-9A-Fa-f]+|\d+)([uUlL]*)", text)
    if m:
        value = int(m.group(1), 0) + (1 if m.group(1) == "0" else rng.choice([-1, 1]))
        return (hex(value) if text.startswith("0x") else str(value)) + m.group(2)
    m = re.fullmatch(r"([0-9.]+)((?:e[-+]?\d+)?f?)", text, re.I)
    if not m:
        return None
    whole = float(m.group(1))
    return f"{whole * 2 if whole else 1.0!r}{m.group(2)}"


def ties(code, begin, end):
    """Is the comparison at [begin, end) one whose sides may be equal without a difference? A minimum or maximum gives the same
    from either side, and a loop in steps rarely meets its end exactly."""
    a = re.search(r"[\w.>\[\]()-]+$", code[:begin].rstrip())
    b = re.match(r"\s*([\w.>\[\]-]+)", code[end:])
    if not a or not b:
        return False
    a, b, after = a.group().lstrip("("), b.group(1), code[end + b.end():]
    pair = {a, b}
    m = re.match(r" \? ([\w.>\[\]-]+) : ([\w.>\[\]-]+)", after)
    if m and {m.group(1), m.group(2)} == pair:
        return True
    m = re.match(r" \? ([\w.>\[\]-]+) - ([\w.>\[\]-]+) : 0", after) or re.match(r"\) ([\w.>\[\]-]+) = ([\w.>\[\]-]+);", after)
    if m and {m.group(1), m.group(2)} == pair:
        return True
    return re.match(r"; \w+ (\+=|\*=)", after) is not None


def edits(rng, line, code):
    """(what, begin, end, new text) for every edit of one line; code: the same line, blanked."""
    out = []
    if re.match(r"\s*(?!return |else |case )(?:\w+ )+\**\w+[\[,;]", code):  # sizes of arrays: more is waste, less is a sanitizer's
        code = re.sub(r"\[(\d+|[A-Z_0-9]+|[\d A-Z_*+]+)\](?=[\[,;]| =)", lambda m: " " * len(m.group()), code)
    for m in re.finditer(r"(?<= )(\+|-|\*|/|%|<|<=|>|>=|==|!=|&&|\|\||\+=|-=|\*=|/=|<<|>>|\||&)(?= )", code):
        if m.group(1)[0] not in "<>" or len(m.group(1)) == 2 and m.group(1)[1] != "=" or not ties(code, *m.span()):
            out.append(("operator", m.start(), m.end(), PAIRS[m.group(1)]))
    for m in re.finditer(r"(?<![\w.])(\d[\d.]*(?:e[-+]?\d+)?f?|0x[0-9A-Fa-f]+u?)(?![\w.])", code, re.I):
        negative = re.search(r"(^|[(,=?:{] ?|return )-$", code[:m.start()])  # -1: 'none', and so is -2
        new = "0" if negative and m.group(1) == "1" else number(rng, m.group(1))
        if new:
            out.append(("constant", m.start(), m.end(), new))
    for m in re.finditer(r"(?<=[\w\])])\[([^][\n]+)\]", code):
        out.append(("index", m.start(1), m.end(1), f"{line[m.start(1):m.end(1)]} {rng.choice('+-')} 1"))
    for m in re.finditer(r"(?<=[(,] )(\w+), (\w+)(?=[,)])|(?<=\()(\w+), (\w+)(?=[,)])", code):
        a, b = (m.group(1), m.group(2)) if m.group(1) else (m.group(3), m.group(4))
        if re.search(r"\b(strn?cmp|memcmp|fmaxf?|fminf?)\($", code[:m.start()]):
            continue  # whether two are equal, or the larger one, does not depend on their order
        out.append(("arguments", m.start(), m.end(), f"{b}, {a}"))
    for m in re.finditer(r"\bif \(", code):
        end = closing(code, m.end())
        if code[end - 1] == ")" and end - m.end() > 1:
            out.append(("condition", m.end(), end - 1, f"!({line[m.end():end - 1]})"))
    for m in re.finditer(r" [+-] (\w+(?:(?:->|\.)\w+)*)(?=[;,)\]])", code):
        out.append(("tail", m.start(), m.end(), ""))
    if not re.search(r"\bfor \(", code):
        for m in re.finditer(r"\+\+|--", code):
            out.append(("step", m.start(), m.end(), "--" if m.group() == "++" else "++"))
    return out


def candidates(rng, path):
    text = (ROOT / path).read_text()
    lines, code = text.split("\n"), blank(text)
    skip = [pattern for files, pattern, _ in LEFT_OUT if fnmatch.fnmatch(path, files)]
    for at, (line, plain, function) in enumerate(zip(lines, code.split("\n"), functions(code)), 1):
        if not function or SILENT.search(function) or any(re.search(p, line) or re.search(p, function) for p in skip):
            continue
        if re.match(r"^\S", plain) or "(void)" in plain:
            continue
        for what, begin, end, new in edits(rng, line, plain):
            if line[begin:end] != new:
                yield Row("", path, at, "", what, line, line[:begin] + new + line[end:])


def files_of(area):
    """[(file, test)]: the first pattern that fits a file counts."""
    seen, out = set(), []
    for pattern, test in area:
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            if name not in seen:
                seen.add(name)
                out.append((name, test))
    return out


def draw(seed, only="*"):
    """Endless rows for a seed. Areas by their share, then a file, then a kind of edit, then a place."""
    rng = random.Random(seed)
    areas = [(share, [f for f in files_of(area) if fnmatch.fnmatch(f[0], only)]) for _, share, area in AREAS]
    areas = [(share, files) for share, files in areas if files]
    pool, taken = {}, set()
    while areas:
        files = rng.choices([f for _, f in areas], [s for s, _ in areas])[0]
        path, test = rng.choice(files)
        if path not in pool:
            pool[path] = list(candidates(random.Random(f"{seed} {path}"), path))
        left = [r for r in pool[path] if (r.path, r.line, r.new) not in taken]
        if not left:
            files.remove((path, test))
            areas = [(share, f) for share, f in areas if f]
            continue
        kind = rng.choice(sorted({r.why for r in left}))
        row = rng.choice([r for r in left if r.why == kind])
        taken.add((row.path, row.line, row.new))
        row.name, row.test = f"{seed}-{len(taken)}", test
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--only", default="*", help="files, with * and ?")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        bad = [r.name for r in read_rows() if r.edit((ROOT / r.path).read_text()) is None]
        print(f"{len(read_rows())} rows, {len(bad)} do not fit their file: {' '.join(bad) or 'none'}")
        sys.exit(bool(bad))
    seed = args.seed if args.seed is not None else random.randrange(1 << 31)
    print(f"# seed {seed}")
    for _, row in zip(range(args.count), draw(seed, args.only)):
        print(row)


if __name__ == "__main__":
    main()
