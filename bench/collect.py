#!/usr/bin/env python3
"""Puts result files of one measurement into one: collect.py OUT.json KEY=TEXT ... KEY+=FILE.json ... (KEY+= is a list of what
the files hold). The commit and the machine's short name are texts of the caller; figures are taken over as they are."""
import json
import sys


def main(args):
    out, root = args[0], {}
    for word in args[1:]:
        key, _, value = word.partition("=")
        if key.endswith("+"):
            with open(value) as file:
                root.setdefault(key[:-1], []).append(json.load(file))
        else:
            root[key] = value
    with open(out, "w") as file:
        json.dump(root, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1:])
