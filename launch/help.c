/* --help and the echo of the given flags, both written from the table in flags.c. */
#include "launch/options.h"

#include <string.h>

static const char intro[] =
    "fluxpar makes one FLUX.1 picture on many processors at once.\n"
    "\n"
    "  fluxpar generate -m launch/demo/model -p \"a slice of pizza on a blue background\"\n"
    "  mpirun -np 4 fluxpar generate -m /models/FLUX.1-dev -p \"a lighthouse\" -S 7 -o lighthouse.png\n";

static const char outro[] =
    "\n"
    "Exit codes: 0 ok, 1 doctor found a failure, 2 usage or launch, 3 model file, 4 device or driver, 5 "
    "communication or peer lost,\n"
    "6 non-finite numbers or selftest found a difference, 7 output or part of a batch failed, 8 memory, "
    "130/143 stopped by a signal.\n";

static const char generate_notes[] =
    "\n"
    "A flag given twice: the last one counts. --flag=value works too. Talk goes to the standard error; the\n"
    "standard output gets one line per picture, its path. With the same seed every mesh, unless --exact is "
    "off,\n"
    "writes the same bytes as one rank.\n"
    "\n"
    "--batch: a line is {\"prompt\": ..., \"seed\": ..., \"width\": ..., \"height\": ..., \"steps\": ..., "
    "\"guidance\": ...,\n"
    "\"output\": ..., \"n\": ...}, all but the prompt may be missing: then the flag counts (a seed that "
    "nobody "
    "gives is drawn once\n"
    "and kept in the results). -o name.png gives name-LINE.png, or has {line}, {image} and {seed} in it. A "
    "bad line is "
    "recorded\n"
    "and the others are made, exit code 7. After a kill or a time limit --resume goes on. More: "
    "launch/README.md.\n"
    "\n"
    "Groups: latency comes first. As long as N pictures or more wait (--merge N), each group of ranks makes "
    "one of them; "
    "with fewer, groups\n"
    "merge, two and more into one, so that none idles: with 4 groups and 6 pictures, 4 are made by 4 groups "
    "and 2 by "
    "2. Paths come as pictures\n"
    "end. --ulysses and --ring are those of one group.\n";

static const char selftest_notes[] = "\n"
                                     "The picture is made twice with one seed: by rank 0 alone, while the "
                                     "others wait, then by all ranks; on one rank\n"
                                     "by one thread, then by --threads. The latents after each step and "
                                     "every block's output are compared. Equal bits\n"
                                     "are demanded where they are promised; with --exact off on a ring, or "
                                     "--backend onednn, a row may be apart by a\n"
                                     "relative error of 1e-3 (f32) or 0.1 (bf16). The first step, block and "
                                     "rank that differ are named, exit code 6.\n"
                                     "Defaults: a fixed prompt, 4 steps, seed 1. --timeout counts while all "
                                     "ranks work; while rank 0 works alone, a\n"
                                     "rank waits --timeout times RANKS for its next sign. Rank 0 keeps the "
                                     "first run's blocks in memory, 4 GiB of them\n"
                                     "or one step's; later steps have their latents compared. --json prints "
                                     "the result as JSON instead of lines.\n";

static const char bench_notes[] =
    "\n"
    "The standard output gets a table with # lines before it; what its columns mean: bench/METRICS.md. One "
    "rank is always\n"
    "measured, first, unless LIST has a mesh 1x1: the others are compared with it. Defaults: a fixed prompt, "
    "4 steps, seed 1.\n"
    "Exit code 6 when bytes differ that should be equal. --timeout counts for the ranks that work; a rank "
    "that has no part\n"
    "in a mesh waits --timeout times RANKS for the next sign.\n";

static const char plan_notes[] =
    "\n"
    "First a table of arrangements, best first, with what a step is made of; then one step of every rank.\n"
    "The graph that makes pictures runs over a backend that computes nothing and a communicator that moves "
    "nothing; "
    "no GPU and no\n"
    "weights are needed, only configs and headers. Lines that begin with # are comments: first what was "
    "asked and "
    "the names of the\n"
    "columns, last the totals of each rank. What the columns mean: launch/README.md.\n";

static const char doctor_notes[] =
    "\n"
    "Alone it looks at this machine; under mpirun or srun at all nodes and at what is between the ranks: "
    "every pair is "
    "measured and\n"
    "the bytes are compared. With -m: is the model whole, do its weights fit. Each finding says what, why it "
    "matters and "
    "what to do.\n"
    "Exit code 1: something would make a job fail. What is looked at: launch/README.md.\n";

/* "text, wrapped at 110 columns" starting in column 32. */
static void print_wrapped(FILE *to, const char *text)
{
    enum { LEFT = 32, RIGHT = 110 };
    int column = LEFT;
    while (*text) {
        const size_t word = strcspn(text, " ");
        if (column > LEFT && column + 1 + (int)word > RIGHT) {
            fprintf(to, "\n%*s", LEFT, "");
            column = LEFT;
        } else if (column > LEFT) {
            fputc(' ', to);
            column++;
        }
        fprintf(to, "%.*s", (int)word, text);
        column += (int)word;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', to);
}

static void print_flag(FILE *to, const fx_flag *f)
{
    char left[96], right[512];
    int n = f->letter ? snprintf(left, sizeof left, "  -%c, --%s", f->letter, f->name)
                      : snprintf(left, sizeof left, "      --%s", f->name);
    if (f->arg) snprintf(left + n, sizeof left - (size_t)n, " %s", f->arg);
    n = snprintf(right, sizeof right, "%s", f->help);
    if (f->kind == FX_FLAG_INT || f->kind == FX_FLAG_REAL)
        n += snprintf(right + n, sizeof right - (size_t)n, "; %.0f to %.0f", f->lo, f->hi);
    if (f->alias) n += snprintf(right + n, sizeof right - (size_t)n, "; also --%s", f->alias);
    const bool required = f->fallback && !strncmp(f->fallback, "required", 8);
    if (f->fallback)
        snprintf(right + n, sizeof right - (size_t)n, " (%s%s)", required ? "" : "default: ", f->fallback);
    fprintf(to, "%-31s ", left);
    if (strlen(left) > 31) fprintf(to, "\n%32s", "");
    print_wrapped(to, right);
}

static void program_help(FILE *to)
{
    fprintf(to, "%s\nSubcommands:\n", intro);
    for (int i = 0; i < fx_command_row_count; i++)
        fprintf(to, "  %-9s %s\n", fx_command_rows[i].name, fx_command_rows[i].summary);
    fprintf(to,
            "\n'fluxpar SUBCOMMAND --help' lists its flags; 'fluxpar --version' the versions of all "
            "libraries.\n%s",
            outro);
}

void fx_options_help(FILE *to, unsigned command)
{
    const fx_command_row *cmd = fx_command_of(command);
    if (!cmd || command == FX_CMD_HELP || command == FX_CMD_VERSION) {
        program_help(to);
        return;
    }
    fprintf(to, "usage: %s\n%s\n\n", cmd->usage, cmd->summary);
    for (int i = 0; i < fx_flag_count; i++)
        if (fx_flags[i].commands & command) print_flag(to, &fx_flags[i]);
    if (command == FX_CMD_GENERATE) fputs(generate_notes, to);
    if (command == FX_CMD_SELFTEST) fputs(selftest_notes, to);
    if (command == FX_CMD_BENCH) fputs(bench_notes, to);
    if (command == FX_CMD_PLAN) fputs(plan_notes, to);
    if (command == FX_CMD_DOCTOR) fputs(doctor_notes, to);
    fputs(outro, to);
}

/* Quotes for a shell when anything but plain characters is in it. */
static size_t put_quoted(char *buf, size_t size, size_t at, const char *text)
{
    const size_t plain =
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:+=,@%");
    if (*text && !text[plain]) return at + (size_t)snprintf(buf + at, size - at, " %s", text);
    if (at + 3 >= size) return at;
    buf[at++] = ' ';
    buf[at++] = '\'';
    for (; *text && at + 6 < size; text++) {
        if (*text == '\'')
            at += (size_t)snprintf(buf + at, size - at, "'\\''");
        else
            buf[at++] = (unsigned char)*text < ' ' ? ' ' : *text;
    }
    if (at + 1 < size) buf[at++] = '\'';
    buf[at] = 0;
    return at;
}

void fx_options_echo(const fx_options *o, char *buf, size_t size)
{
    size_t at = 0;
    buf[0] = 0;
    for (int i = 0; i < fx_flag_count; i++) {
        const fx_flag *f = &fx_flags[i];
        char number[64];
        if (!(o->given >> i & 1) || at + 80 > size) continue;
        at += (size_t)snprintf(buf + at, size - at, "%s--%s", at ? " " : "", f->name);
        if (f->kind != FX_FLAG_SWITCH)
            at = put_quoted(buf, size, at, fx_flag_text(o, f, number, sizeof number));
        if (at >= size) at = size - 1;
    }
}
