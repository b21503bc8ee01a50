"""The weight generator shared by the golden scripts and the C tests, and the manifest that lists what to generate.

A golden model folder holds no weights. manifest.json names every tensor of every weight file; its values come from a
counter-based generator, so that C and Python make the same bytes without exchanging them. The exact rule is in README.md.
"""
import json
import os

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MASK = (1 << 64) - 1
SAFETENSORS_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


def fnv1a(text):
    """64-bit FNV-1a of the UTF-8 bytes"""
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def generate(path, seed, shape, amp, mean=0.0):
    """f32 values of the tensor called `path` ("transformer/x_embedder.weight"), row-major"""
    n = int(np.prod(shape, dtype=np.int64))
    key = np.uint64(fnv1a(path) ^ ((seed * int(GOLDEN)) & MASK))
    with np.errstate(over="ignore"):
        z = key + np.arange(1, n + 1, dtype=np.uint64) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    v = (np.float32(2) * u - np.float32(1)) * np.float32(amp)
    if mean != 0:
        v = v + np.float32(mean)
    return v.reshape(shape)


def bf16_bits(x):
    """f32 -> bf16 bits, round to nearest even (finite values)"""
    b = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def to_bytes(x, dtype):
    """f32 array -> little-endian bytes of the safetensors dtype"""
    if dtype == "F32":
        return x.astype("<f4").tobytes()
    if dtype == "F16":
        return x.astype("<f2").tobytes()
    return bf16_bits(x).astype("<u2").tobytes()


def write_safetensors(path, tensors):
    """tensors: list of (name, dtype, shape, bytes), written in that order"""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(len(head).to_bytes(8, "little") + head)
        for _, _, _, data in tensors:
            f.write(data)


def write_manifest(path, manifest):
    """one tensor per line, so that a diff stays readable"""
    with open(path, "w") as f:
        f.write('{"seed":%d,"files":[\n' % manifest["seed"])
        for i, file in enumerate(manifest["files"]):
            f.write('{"path":%s,"tensors":[\n' % json.dumps(file["path"]))
            f.write(",\n".join(json.dumps(t, separators=(",", ":")) for t in file["tensors"]))
            f.write("\n]}%s\n" % ("," if i + 1 < len(manifest["files"]) else ""))
        f.write("]}\n")


def write_weights(manifest, root):
    """generates every weight file of the manifest below `root`; the component is the first path segment"""
    for file in manifest["files"]:
        component = file["path"].split("/")[0]
        out = []
        for t in file["tensors"]:
            x = generate(f"{component}/{t['name']}", manifest["seed"], t["shape"], t["amp"], t["mean"])
            out.append((t["name"], t["dtype"], t["shape"], to_bytes(x, t["dtype"])))
        write_safetensors(os.path.join(root, file["path"]), out)
