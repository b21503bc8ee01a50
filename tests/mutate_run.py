#!/usr/bin/env python3
"""Tries one-line bugs: for each row of mutants.txt, and for some drawn ones, edits a copy of the tree, builds what the row's
tests need, and expects one of them to fail. What survives its own tests gets the quick list as a whole, and then its own tests
in a build with AddressSanitizer and UBSan, as CI runs the quick list: a step beyond an array's end may change no result.

    tests/mutate_run.py WORK_DIR [--seed N] [--count 30] [--rows GLOB] [--only GLOB] [--jobs 2] [--least 95] [--limit S]

Row names and drawn files can be narrowed by --rows and --only. An edit that does not compile, or that leaves the compiled
tests as they were, is no bug: drawn rows are then replaced, a row of the list fails. Each copy has a build folder of its own.
"""
import argparse
import filecmp
import fnmatch
import hashlib
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import mutate

ROOT = mutate.ROOT
GOLDEN = "{src}/tests/goldens/{1}"
MPI = "mpirun --oversubscribe --bind-to none -np {0} "
# Name in a row -> (programs to build, command). {0} and {1} are its arguments, {each} stands for every argument in turn.
SPECIAL = {
    "ops": (["ops"], "{ops} --backend cpu --op {each}"),
    "golden": (["golden", "tool_materialize"], "{golden} --backend cpu {each}"),
    "comm": (["comm"], MPI + "{comm}"),
    "shard": (["shard"], MPI + "{shard} quick"),
    "slabs": (["slabs"], MPI + "{slabs}"),
    "mesh": (["mesh"], MPI + "{mesh} {models}/{1} 1 few"),
    "store_device": (["store_device"], "{store_device}"),
    "machine": (["twin"], "{twin}"),
    "kernels": (["ops"], "{ops} --backend twin --op {each}"),
    "encoder": (["encoder"], MPI + "{encoder} {models}/{1} " + GOLDEN + "/golden"),
}
MODELS = ["h24dev", "h6schnell", "h10shards", "h5odd"]
# A size gone wrong must not take the machine: bytes of address space and of a file.
SANITIZER = {"ASAN_OPTIONS": "detect_leaks=0:hard_rss_limit_mb=9000:max_allocation_size_mb=9000"}
MOST_MEMORY, MOST_FILE = 10 << 30, 1 << 30


def program(name):
    """The program of a test: tests/t_NAME.c or another prefix."""
    for prefix in ("t_", "check_", ""):
        if any((ROOT / f"tests/{prefix}{name}{end}").exists() for end in (".c", ".cc")):
            return prefix + name
    sys.exit(f"there is no program for the test '{name}'")


def sources():
    """Files of the tree that git does not ignore; without git, all but build folders."""
    listed = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT,
                            capture_output=True, text=True) if shutil.which("git") else None
    if listed and listed.returncode == 0:
        return listed.stdout.split("\0")
    found = (p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file())
    return [str(p) for p in found if not p.parts[0].startswith(("build", ".git"))]


class Copy:
    """A copy of the tree with a build folder, edited by one thread."""

    jobs_share = False  # several copies build at the same time
    running = set()

    def __init__(self, number, work, limit, keep):
        self.dir = work / f"copy{number}"
        self.src, self.build, self.models, self.tmp = (self.dir / n for n in ("src", "build", "models", "tmp"))
        self.limit = limit  # seconds for any one command
        self.log = ""
        self.flags = []
        shutil.rmtree(self.tmp if keep else self.dir, ignore_errors=True)
        for d in (self.models, self.tmp):
            d.mkdir(parents=True, exist_ok=True)
        for name in sources():
            if not name or not (ROOT / name).is_file():
                continue
            to = self.src / name
            if keep and to.exists() and filecmp.cmp(ROOT / name, to, shallow=False):
                continue
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to)
        self.env = dict(os.environ, TMPDIR=str(self.tmp), FX_TESTS_DIR=str(self.src / "tests"), FX_BUILD=str(self.build),
                        ONEDNN_MAX_CPU_ISA="AVX2", OMP_WAIT_POLICY="passive", OMP_NUM_THREADS="1",
                        OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        for name in ("FX_LONG", "FX_QUICK"):
            self.env.pop(name, None)
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        # what CI's -Werror builds refuse is no bug that a test has to find
        flags = "-Wall -Wextra -Werror=int-conversion -Werror=incompatible-pointer-types -Werror=array-bounds " \
                "-Werror=aggressive-loop-optimizations -Werror=maybe-uninitialized"
        self.flags = [*generator, f"-DCMAKE_C_FLAGS={flags}"]
        self.must(["cmake", "-S", self.src, "-B", self.build, "-DCMAKE_BUILD_TYPE=Release", *self.flags])
        self.compile(["tool_materialize", "fluxpar"]) or sys.exit(f"the copy does not build:\n{self.log[-3000:]}")
        for m in MODELS:
            self.must([self.build / "tests/tool_materialize", self.src / "tests/goldens" / m, self.models / m])

    def run(self, command, seconds, **more):
        """Exit code (124: out of time) of a command in a session of its own."""
        def limits():
            os.setsid()
            if "ASAN_OPTIONS" not in more:  # it maps far more than it uses, and has a limit of its own
                resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
            resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_FILE, MOST_FILE))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open(self.dir / "log", "wb") as log:
            p = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.tmp,
                                 env={**self.env, **more}, preexec_fn=limits)
            Copy.running.add(p)
            try:
                code = p.wait(seconds)
            except subprocess.TimeoutExpired:
                code = 124
                for s in (signal.SIGTERM, signal.SIGKILL):  # mpirun ends its ranks when it is asked to
                    try:
                        os.killpg(p.pid, s)
                        p.wait(5)
                        break
                    except (subprocess.TimeoutExpired, ProcessLookupError):
                        pass
                p.wait()
            Copy.running.discard(p)
        self.log = (self.dir / "log").read_text(errors="replace")
        return code

    def must(self, command):
        if self.run(command, 600):
            sys.exit(f"{command} failed:\n{self.log[-3000:]}")

    def compile(self, targets, build=None):
        jobs = ["-j", "1" if self.jobs_share else str(os.cpu_count())]
        return self.run(["cmake", "--build", build or self.build, *jobs, "--target", *targets], 900) == 0

    def sanitized(self, targets):
        """A build folder with the sanitizers, made when it is first needed, and these programs in it; None: it does not build."""
        build = self.dir / "build-asan"
        if not (build / "CMakeCache.txt").exists():
            self.must(["cmake", "-S", self.src, "-B", build, "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DFX_SANITIZE=ON", *self.flags])
        return build if self.compile(targets, build) else None

    def digest(self, targets):
        """What the tests of a row are made of; equal digests mean that an edit changed nothing."""
        paths = [self.build / "tests" / t for t in targets]
        return [hashlib.sha256(p.read_bytes()).hexdigest() if p.exists() else "" for p in paths]

    def steps(self, test, build=None):
        """'ops@SSE41 linear conv2d; layout' -> [(targets, command, environment)], one per program run."""
        build = build or self.build
        out = []
        for part in test.split(";"):
            head, *args = part.split()
            name, _, isa = head.partition("@")
            more = {"ONEDNN_MAX_CPU_ISA": isa} if isa else {}
            script = self.src / "tests" / f"sh_{name}.sh"
            if name not in SPECIAL and script.exists():
                out.append((["all"], ["bash", script], more))
                continue
            programs, form = SPECIAL.get(name, ([name], "{" + name + "}"))
            targets = [program(p) for p in programs]
            words = {p: build / "tests" / t for p, t in zip(programs, targets)}
            for each in (args or [""]) if "{each}" in form else [""]:
                filled = [w.format(*args, each=each, src=self.src, models=self.models, **words) for w in form.split()]
                filled = [w for w in filled if w]
                out.append((targets, filled, more))
        return out

    def clean(self):
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir()


def stop(code):
    """Ends everything that still runs, and this program."""
    for p in list(Copy.running):
        try:
            os.killpg(p.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
    sys.stdout.flush()
    os._exit(code)


class Trial:
    """All trials together: what the threads share."""

    def __init__(self, args, rows, drawn):
        self.args, self.rows, self.drawn = args, list(rows), drawn
        self.lock = threading.Lock()
        self.usual = {}  # command -> seconds without an edit
        self.done, self.viable, self.trying = [], 0, 0
        self.begin = time.time()
        self.equivalent = [r for r in mutate.read_rows() if r.test == "equivalent"]

    def next_row(self):
        """A row of the list, then drawn ones until enough were bugs; None at the end."""
        while True:
            with self.lock:
                if self.rows:
                    return self.rows.pop(0), False
                if self.viable >= self.args.count or time.time() - self.begin > self.args.seconds:
                    return None, True
                if self.viable + self.trying < self.args.count:
                    row = next(self.drawn, None)
                    if row is None:
                        return None, True
                    self.trying += 1
                    return row, True
            time.sleep(0.5)

    def note(self, verdict, row, by, seconds):
        with self.lock:
            self.done.append((verdict, row, by))
            print(f"{verdict:<10} {row.name:<22} {row.path}{':' + str(row.line) if row.line else '':<6} {by}  ({seconds:.0f} s)")
            if verdict in ("survived", "broken"):
                print(f"           - {row.old.strip()}\n           + {row.new.strip()}")
            sys.stdout.flush()

    def usual_seconds(self, copy, step):
        """(key, what the step took without an edit or None)"""
        key = " ".join(map(str, [*step[1], step[2]])).replace(str(copy.dir), "")
        with self.lock:
            return key, self.usual.get(key)

    def must_pass(self, copy, step):
        """A test that fails without an edit says nothing: it is run so once."""
        key, known = self.usual_seconds(copy, step)
        if known is not None:
            return
        begin = time.time()
        if not copy.compile(step[0]) or (copy.run(step[1], copy.limit, **step[2]) and copy.run(step[1], 2 * copy.limit, **step[2])):
            print(f"{copy.log[-3000:]}\nwithout any edit this fails: {key}", flush=True)
            stop(1)
        with self.lock:
            self.usual[key] = time.time() - begin

    def quick_list(self, copy, *only):
        """Names of the tests of the quick list that fail, or of those named."""
        copy.compile(["all"])
        run = ["bash", copy.src / "tests/run.sh", "--quick", "--no-build", "--build", copy.build, *only]
        code = copy.run(run, 900, FX_TEST_LIMIT="240")
        failed = [line.split(":")[1].split() for line in copy.log.splitlines() if line.startswith("failed tests:")]
        return failed[0] if failed else ["run.sh"] if code else []

    def patience(self, copy, step):
        _, usual = self.usual_seconds(copy, step)
        return copy.limit if usual is None else min(copy.limit, 15 + 10 * usual)

    def fails(self, copy, step):
        """Why the step fails with the edit, or ''."""
        code = copy.run(step[1], self.patience(copy, step), **step[2])
        what = " ".join([*step[2].values()] + [pathlib.Path(str(w)).name for w in step[1] if not str(w).startswith("--") and w != "none"])
        return what + (" (out of time)" if code == 124 else "") if code else ""

    def sanitizer_finds(self, copy, row):
        """The first of the row's programs that fails under the sanitizers, and why; scripts are left out."""
        steps = [s for s in copy.steps(row.test, copy.dir / "build-asan") if s[0] != ["all"]]
        if not steps or not copy.sanitized(sorted({t for s in steps for t in s[0]})):
            return None, ""
        for step in steps:
            code = copy.run(step[1], copy.limit, **SANITIZER, **step[2])
            if code:
                return step, pathlib.Path(str(step[1][0])).name + " " + row.test.split(";")[0] + " (sanitizers)"
        return None, ""

    def judge(self, copy, row):
        """(verdict, by what)"""
        path = copy.src / row.path
        text = path.read_text()
        changed = row.edit(text)
        if changed is None:
            return "broken", "the row does not fit its file"
        steps = copy.steps(row.test)
        asan, found = None, ""
        targets = sorted({t for s in steps for t in s[0]})
        if not copy.compile(targets):
            print(copy.log[-3000:], flush=True)
            stop(1)
        self.must_pass(copy, steps[0])  # the likely one: its time bounds how long an edit that hangs is waited for
        before, failed, by, quick = copy.digest(targets), None, "", []
        path.write_text(changed)
        try:
            if not copy.compile(targets):
                return "broken", "does not compile"
            if "all" not in targets and copy.digest(targets) == before:
                return "broken", "the compiled tests are the same"
            for step in steps:
                by = self.fails(copy, step)
                if by:
                    failed = step
                    break
            else:
                quick = self.quick_list(copy)
                if not quick:
                    asan, found = self.sanitizer_finds(copy, row)
        finally:
            path.write_text(text)
            copy.clean()
        if failed:
            self.must_pass(copy, failed)
            if by.endswith("(out of time)") and (not copy.compile(failed[0]) or copy.run(failed[1], self.patience(copy, failed), **failed[2])):
                by = ""  # the machine was that slow
        if asan and copy.sanitized(asan[0]) and not copy.run(asan[1], copy.limit, **SANITIZER, **asan[2]):  # passes without
            by = found
        if quick and not self.quick_list(copy, *quick):  # they pass without the edit
            by = " ".join(quick) + " (quick list)"
        return ("killed", by) if by else ("survived", "")

    def work(self, copy):
        while True:
            row, is_drawn = self.next_row()
            if row is None:
                return
            begin = time.time()
            listed = is_drawn and any(e.makes(row) for e in self.equivalent)
            verdict, by = ("equivalent", "listed in mutants.txt") if listed else self.judge(copy, row)
            with self.lock:
                if is_drawn:
                    self.trying -= 1
                    self.viable += verdict in ("killed", "survived")
            if is_drawn and verdict == "broken":
                verdict = "no bug"
            self.note(verdict, row, by, time.time() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--rows", default="*", help="names with * and ?, separated by commas")
    parser.add_argument("--only", default="*")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--least", type=float, default=95)
    parser.add_argument("--seconds", type=float, default=1e9, help="after so long no more are drawn")
    parser.add_argument("--limit", type=float, default=180, help="seconds for any one test")
    parser.add_argument("--keep", action="store_true", help="use the copies of the last time, brought up to date")
    args = parser.parse_args()
    rows = [r for r in mutate.read_rows() if any(fnmatch.fnmatch(r.name, g) for g in args.rows.split(",")) and r.test != "equivalent"]
    signal.signal(signal.SIGTERM, lambda number, frame: stop(143))
    trial = Trial(args, rows, mutate.draw(args.seed, args.only))
    print(f"{len(rows)} rows of mutants.txt, {args.count} drawn with seed {args.seed}")
    copies = [Copy(i, args.work.resolve(), args.limit, args.keep) for i in range(args.jobs)]
    Copy.jobs_share = args.jobs > 1
    print(f"{args.jobs} copies built in {time.time() - trial.begin:.0f} s")
    threads = [threading.Thread(target=trial.work, args=(c,)) for c in copies]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    by = {v: sum(1 for d in trial.done if d[0] == v) for v in ("killed", "survived", "broken", "no bug", "equivalent")}
    bugs = by["killed"] + by["survived"]
    share = 100 * by["killed"] / bugs if bugs else 0
    print(f"seed {args.seed}: {by['killed']} of {bugs} bugs made a test fail, {share:.1f} % (at least {args.least:g} %); "
          f"{by['no bug']} drawn edits were no bugs, {by['equivalent']} listed as equivalent; "
          f"{time.time() - trial.begin:.0f} s")
    if trial.viable < args.count:
        print(f"not drawn: {args.count - trial.viable} of {args.count}, time was over")
    for verdict, row, _ in trial.done:
        if verdict == "survived":
            print(f"survivor: {row}", end="")
    sys.exit(1 if by["broken"] or share < args.least else 0)


if __name__ == "__main__":
    main()
