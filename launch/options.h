/* What the user types. One table of flags drives parsing, --help, the echo at the start of a run, the
 * comparison of arguments between ranks and the JSON metadata in the picture; one table of subcommands stands
 * beside it. */
#ifndef FX_LAUNCH_OPTIONS_H
#define FX_LAUNCH_OPTIONS_H

#include "runtime/core/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    FX_CMD_GENERATE = 1,
    FX_CMD_INSPECT = 2,
    FX_CMD_INFO = 4,
    FX_CMD_VERSION = 8,
    FX_CMD_HELP = 16,
    FX_CMD_SELFTEST = 32,
    FX_CMD_PLAN = 64,
    FX_CMD_BENCH = 256,
    FX_CMD_DOCTOR = 1024
};
enum { FX_PLAN_GPUS = 1024 }; /* most that plan is for */

/* The values. Numbers that were not given are 0 (guidance -1): the model folder supplies them later. */
typedef struct fx_options {
    unsigned command; /* one FX_CMD_ bit */
    bool help;        /* --help after a subcommand */
    bool json, quiet, verbose, force, trace, no_graphs, no_vae, resume;
    const char *path; /* the argument without a flag: inspect PATH, info IMG.png */
    const char *model, *prompt, *prompt_file, *output, *report, *dump, *warmup, *meshes, *json_file, *batch,
        *results;
    const char *backend, *dtype, *layout, *exact, *exchange,
        *bind; /* choices, always one of the words in the table */
    const char *gpu, *topology, *precision, *trace_json, *svg; /* of plan */
    const char *calibrate;                                     /* of bench */
    int64_t count, width, height, steps, t5_len, ulysses, ring, groups, merge, threads, gpus, runs, warmups;
    double guidance, timeout, grace, images_per_s, latency_s;
    uint64_t seed;
    uint64_t given; /* bit i: row i of the table was on the command line */
} fx_options;

typedef enum {
    FX_FLAG_SWITCH,
    FX_FLAG_TEXT,
    FX_FLAG_INT,
    FX_FLAG_REAL,
    FX_FLAG_SEED,
    FX_FLAG_CHOICE
} fx_flag_kind;

typedef struct fx_flag {
    const char *name, *alias; /* without the dashes; alias may be NULL */
    char letter;              /* 0: none */
    fx_flag_kind kind;
    const char *arg;      /* "N" "DIR" ...; NULL for switches */
    size_t offset;        /* of the value in fx_options */
    double lo, hi;        /* INT and REAL, inclusive */
    const char *choices;  /* CHOICE: "auto|cpu|onednn|ref" */
    const char *fallback; /* default, as help shows it; CHOICE: the word itself */
    const char *help;
    unsigned commands; /* FX_CMD_ bits */
    bool pixels;       /* changes pixels, so it goes into the picture's metadata */
} fx_flag;

extern const fx_flag fx_flags[];
extern const int fx_flag_count;

typedef struct fx_command_row {
    const char *name;
    unsigned bit;
    bool ranks; /* runs on all ranks; the others never start MPI */
    const char *usage, *summary;
} fx_command_row;

extern const fx_command_row fx_command_rows[];
extern const int fx_command_row_count;

/* Never prints. FX_EINVAL: the message names flag, value and what is allowed. *out is filled as far as
 * parsing came. */
fx_status fx_options_parse(int argc, char *const argv[], fx_options *out);
/* Row by name ("steps"), -1 when unknown. Where two subcommands have a flag of that name, the row of `command`, a FX_CMD_ bit. */
int fx_flag_find(const char *name);
int fx_flag_find_of(unsigned command, const char *name);
/* As if --name value (NULL: a switch) stood on the command line. Texts are kept by address. FX_EINVAL as from the parser. */
fx_status fx_options_set(fx_options *, const char *name, const char *value);
bool fx_flag_given(const fx_options *, const char *name);
/* The value of a row as text ("28"), for echo, comparison and reports; buf is used for numbers only. */
const char *fx_flag_text(const fx_options *, const fx_flag *, char *buf, size_t size);
const fx_command_row *fx_command_of(unsigned bit);

/* "--model launch/demo/model --steps 4": the flags that were given, quoted for a shell where needed. */
void fx_options_echo(const fx_options *, char *buf, size_t size);
/* Help of one subcommand (its bit) or, with 0, of the program. */
void fx_options_help(FILE *, unsigned command);
/* The word of `words` ("a|b|c") nearest to `word`, or NULL when none is near. */
bool fx_nearest(const char *word, const char *words, char *out, size_t size);

#endif
