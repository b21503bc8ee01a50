/* The table of flags and the table of subcommands: the only place where a flag is described. */
#include "launch/options.h"
#include "parallel/groups.h"

/* Flags of what is computed belong to the commands that compute, those of its shape to plan as well; those of files to
 * generate alone. */
#define RUNS      (FX_CMD_GENERATE | FX_CMD_SELFTEST | FX_CMD_BENCH)
#define SHAPES    (RUNS | FX_CMD_PLAN)
#define ONE_MESH  (SHAPES & ~FX_CMD_BENCH) /* bench has --meshes */
#define AT(field) offsetof(fx_options, field)
#define SWITCH(name, letter, field, help, commands)                                                          \
    {                                                                                                        \
        name, NULL, letter, FX_FLAG_SWITCH, NULL, AT(field), 0, 0, NULL, NULL, help, commands, false         \
    }
#define TEXT(name, letter, arg, field, fallback, help, commands, pixels)                                     \
    {                                                                                                        \
        name, NULL, letter, FX_FLAG_TEXT, arg, AT(field), 0, 0, NULL, fallback, help, commands, pixels       \
    }
#define FILE_TEXT(name, letter, arg, field, fallback, help)                                                  \
    {                                                                                                        \
        name, NULL, letter, FX_FLAG_TEXT, arg, AT(field), 0, 0, NULL, fallback, help, FX_CMD_GENERATE, false \
    }
#define INT(name, alias, letter, field, lo, hi, fallback, help, commands, pixels)                            \
    {                                                                                                        \
        name, alias, letter, FX_FLAG_INT, "N", AT(field), lo, hi, NULL, fallback, help, commands, pixels     \
    }
#define REAL(name, letter, arg, field, lo, hi, fallback, help, pixels)                                       \
    {                                                                                                        \
        name, NULL, letter, FX_FLAG_REAL, arg, AT(field), lo, hi, NULL, fallback, help, RUNS, pixels         \
    }
#define CHOICE(name, field, choices, fallback, help, commands, pixels)                                       \
    {                                                                                                        \
        name, NULL, 0, FX_FLAG_CHOICE, choices, AT(field), 0, 0, choices, fallback, help, commands, pixels   \
    }

const fx_flag fx_flags[] = {
    TEXT("model", 'm', "DIR", model, "required",
         "diffusers folder, or synthetic:flux-dev[:D+S], synthetic:flux-schnell[:D+S]",
         SHAPES | FX_CMD_DOCTOR, true),
    TEXT("prompt", 'p', "TEXT", prompt, "required, may be empty", "what to draw", RUNS, true),
    TEXT("prompt-file", 0, "FILE", prompt_file, NULL,
         "read the prompt from a UTF-8 file; - is the standard input", RUNS, false),
    FILE_TEXT("output", 'o', "FILE", output, "fluxpar-SEED.png",
              "PNG to write; with -n, name.png becomes name-SEED.png"),
    FILE_TEXT("batch", 0, "JOBS.jsonl", batch, NULL,
              "many pictures: a JSON object per line; - is the standard input (see below)"),
    FILE_TEXT("results", 0, "FILE", results, "JOBS.results.jsonl",
              "of a batch: a line per picture, written when it is on the disk"),
    SWITCH("resume", 0, resume, "go on with a batch: what its results file says is made is not made again",
           FX_CMD_GENERATE),
    {"grace", NULL, 0, FX_FLAG_REAL, "S", AT(grace), 0, 86400, NULL, "20",
     "seconds in which a batch ends after SIGUSR1 or SIGTERM: the picture is finished if it can be",
     FX_CMD_GENERATE, false},
    {"count", NULL, 'n', FX_FLAG_INT, "N", AT(count), 1, 10000, NULL, "1",
     "number of images, with seeds S, S+1, ...", FX_CMD_GENERATE, false},
    INT("width", NULL, 'W', width, 1, 65536, "the model's", "in pixels, a multiple of 16 (FLUX.1)", SHAPES,
        true),
    INT("height", NULL, 'H', height, 1, 65536, "the model's", "in pixels, a multiple of 16 (FLUX.1)", SHAPES,
        true),
    INT("steps", NULL, 0, steps, 1, 1000, "28; 4 without guidance embedding", "denoising steps", SHAPES,
        true),
    REAL("guidance", 'g', "X", guidance, 0, 100, "3.5",
         "distilled guidance; ignored by models without its embedding", true),
    {"seed", NULL, 'S', FX_FLAG_SEED, "N", AT(seed), 0, 0, NULL, "random, printed",
     "of the noise: the same seed gives the same picture on any number of ranks", RUNS, true},
    INT("t5-len", NULL, 0, t5_len, 1, 512, "the model's",
        "text tokens; longer prompts are cut with a warning", SHAPES, true),
    INT("ulysses", "ulysses-degree", 0, ulysses, 1, 65536, "gcd(heads, ranks)", "ranks that share the heads",
        ONE_MESH, false),
    INT("ring", "ring-degree", 0, ring, 1, 65536, "ranks / ulysses", "ranks that pass keys and values round",
        ONE_MESH, false),
    {"groups", NULL, 0, FX_FLAG_INT, "G", AT(groups), 1, FX_GROUPS_MOST, NULL, "ranks / at most 8",
     "ranks = groups x ulysses x ring: groups make different pictures at the same time", FX_CMD_GENERATE,
     false},
    {"merge", NULL, 0, FX_FLAG_INT, "N", AT(merge), 0, FX_GROUPS_MOST, NULL, "the number of groups",
     "with fewer pictures waiting than this, groups merge into fewer, wider ones after a picture; 0: never",
     FX_CMD_GENERATE, false},
    CHOICE("layout", layout, "auto|even|stream", "auto",
           "rows per rank: evenly split, or text and image on different ranks", SHAPES, false),
    CHOICE("exact", exact, "auto|on|off", "auto",
           "auto and on: any mesh gives the bytes of one rank; off: ring meshes pass keys and values on, "
           "less memory",
           SHAPES, false),
    CHOICE("exchange", exchange, "auto|peer|nccl|lsa", "auto",
           "between GPUs: attention's rows by kernels into the peer's memory (lsa; auto, on one node or in "
           "one NVLink domain), by copies into it, or by NCCL",
           SHAPES, false),
    SWITCH("no-graphs", 0, no_graphs,
           "on a GPU, launch every kernel of every step by itself instead of replaying a recorded step (CUDA "
           "graph)",
           RUNS),
    CHOICE("bind", bind, "auto|off", "auto",
           "threads and memory to the device's NUMA node or to an equal share of the allowed cores (hwloc)",
           RUNS, false),
    INT("threads", NULL, 0, threads, 1, 1024, "cores / ranks of the node", "threads per rank", RUNS, false),
    CHOICE("backend", backend, "auto|cpu|onednn|ref|guard|cuda", "auto",
           "what computes: own kernels, oneDNN, or plain loops in double precision; guard: as auto, every "
           "call watched",
           RUNS | FX_CMD_DOCTOR, true),
    CHOICE("dtype", dtype, "bf16|f32", "bf16", "of weights and activations", RUNS, true),
    {"timeout", NULL, 0, FX_FLAG_REAL, "S", AT(timeout), 1, 86400, NULL, "60",
     "seconds until a wait for another rank is given up", RUNS | FX_CMD_DOCTOR, false},
    FILE_TEXT("warmup", 0, "WxH,...", warmup, NULL,
              "plan these sizes too, and run a little of each before the first picture"),
    FILE_TEXT("report", 0, "FILE", report, NULL, "write timings, memory and communication as JSON"),
    FILE_TEXT("dump", 0, "DIR", dump, NULL,
              "write intermediate tensors as .npy files (with -n: of the first picture)"),
    TEXT("gpu", 0, "NAME", gpu, "h100",
         "a100, h100, h200, b200, gb200, this (measured here), or a machine FILE.json", FX_CMD_PLAN, false),
    TEXT("topology", 0, "NAME", topology, "of the machine",
         "who reaches whom how: nvl72, dgx, or a FILE.json", FX_CMD_PLAN, false),
    TEXT("dtype", 0, "LIST", precision, "bf16",
         "bf16, f32; fp8 and nvfp4 are predicted, not implemented; several with commas, or any", FX_CMD_PLAN,
         false),
    {"images-per-second", NULL, 0, FX_FLAG_REAL, "X", AT(images_per_s), 1e-6, 1e9, NULL, NULL,
     "rank only what makes so many, shortest time of a picture first", FX_CMD_PLAN, false},
    {"latency", NULL, 0, FX_FLAG_REAL, "S", AT(latency_s), 1e-6, 1e9, NULL, NULL,
     "rank only what makes a picture in S seconds, most pictures per second first", FX_CMD_PLAN, false},
    TEXT("trace-json", 0, "FILE", trace_json, NULL, "write the best plan's step for Chrome's trace viewer",
         FX_CMD_PLAN, false),
    TEXT("svg", 0, "FILE", svg, NULL, "draw a block of each kind of the best plan", FX_CMD_PLAN, false),
    INT("gpus", NULL, 0, gpus, 1, FX_PLAN_GPUS, "1", "GPUs, a rank each", FX_CMD_PLAN, false),
    SWITCH("trace", 0, trace, "a line for each launch, transfer and wait of every rank", FX_CMD_PLAN),
    TEXT("meshes", 0, "LIST", meshes, "auto",
         "what is compared: ULYSSESxRING[:FLAG=VALUE...],... (or RANKS, their default mesh) with the flags "
         "layout, exact, exchange, dtype, "
         "backend, threads and no-graphs; auto: 1, 2, 4, ... and all ranks; all: also every other mesh of "
         "them",
         FX_CMD_BENCH, false),
    TEXT("calibrate", 0, "FILE", calibrate, NULL,
         "instead, measure this machine's rates for plan --gpu FILE; 'this' for plan --gpu this",
         FX_CMD_BENCH, false),
    INT("runs", NULL, 0, runs, 1, 1000, "5", "timed pictures per mesh, by turns in up to three rounds",
        FX_CMD_BENCH, false),
    INT("warmup", NULL, 0, warmups, 0, 100, "1", "pictures before them in each round, not timed",
        FX_CMD_BENCH, false),
    SWITCH("no-vae", 0, no_vae, "time text and steps only; the latents are compared, not the pictures",
           FX_CMD_BENCH),
    TEXT("json", 0, "FILE", json_file, NULL, "write the table with all samples as JSON", FX_CMD_BENCH, false),
    SWITCH("json", 0, json, "print JSON on the standard output",
           FX_CMD_SELFTEST | FX_CMD_DOCTOR | FX_CMD_PLAN | FX_CMD_INSPECT | FX_CMD_INFO),
    SWITCH("quiet", 'q', quiet, "nothing but errors on the standard error",
           RUNS | FX_CMD_DOCTOR | FX_CMD_INSPECT | FX_CMD_INFO),
    SWITCH("verbose", 'v', verbose, "details, the phases of all ranks, and the source line of an error",
           RUNS | FX_CMD_DOCTOR | FX_CMD_INSPECT | FX_CMD_INFO),
    SWITCH("force", 'f', force, "overwrite the output", FX_CMD_GENERATE | FX_CMD_BENCH),
    SWITCH("help", 'h', help, "print this help", SHAPES | FX_CMD_DOCTOR | FX_CMD_INSPECT | FX_CMD_INFO),
};
const int fx_flag_count = sizeof fx_flags / sizeof fx_flags[0];

const fx_command_row fx_command_rows[] = {
    {"generate", FX_CMD_GENERATE, true, "[mpirun -np RANKS] fluxpar generate -m DIR -p TEXT [flags]",
     "make a picture from a prompt, on one or many ranks"},
    {"selftest", FX_CMD_SELFTEST, true, "[mpirun -np RANKS] fluxpar selftest -m DIR [flags]",
     "do these ranks compute what one rank computes: latents of each step and blocks compared"},
    {"bench", FX_CMD_BENCH, true, "[mpirun -np RANKS] fluxpar bench -m DIR [--meshes LIST] [flags]",
     "time meshes of 1 to RANKS ranks against each other, and compare their bytes"},
    {"doctor", FX_CMD_DOCTOR, true, "[mpirun -np RANKS] fluxpar doctor [-m DIR] [--json]",
     "what this machine or allocation can do, and what is wrong with it, before a job fails"},
    {"plan", FX_CMD_PLAN, false, "fluxpar plan -m DIR --gpu NAME --gpus N [--json | --trace] [flags]",
     "how N GPUs are best laid out, how long a picture takes and what limits it; none is needed"},
    {"inspect", FX_CMD_INSPECT, false, "fluxpar inspect PATH [--json]",
     "what is this model: kind, sizes, dtypes, missing parts"},
    {"info", FX_CMD_INFO, false, "fluxpar info IMG.png [--json]", "how was this picture made"},
    {"version", FX_CMD_VERSION, false, "fluxpar version", "versions of fluxpar and of all libraries"},
    {"help", FX_CMD_HELP, false, "fluxpar help [subcommand]", "this help, or that of a subcommand"},
};
const int fx_command_row_count = sizeof fx_command_rows / sizeof fx_command_rows[0];
