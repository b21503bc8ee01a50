/* Parsing with the table of flags.c: --flag value, --flag=value, -f value, -fvalue; the last of two wins.
 * Every refusal is one message that names the flag, the value and what is allowed. */
#include "launch/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int fx_flag_find_of(unsigned command, const char *name)
{
    int found = -1;
    for (int i = 0; i < fx_flag_count; i++) {
        const fx_flag *f = &fx_flags[i];
        if (strcmp(name, f->name) && (!f->alias || strcmp(name, f->alias))) continue;
        if (f->commands & command) return i;
        if (found < 0) found = i;
    }
    return found;
}

int fx_flag_find(const char *name)
{
    return fx_flag_find_of(0, name);
}

static int find_letter(char letter)
{
    for (int i = 0; i < fx_flag_count; i++)
        if (letter && fx_flags[i].letter == letter) return i;
    return -1;
}

bool fx_flag_given(const fx_options *o, const char *name)
{
    const int row = fx_flag_find_of(o->command, name);
    return row >= 0 && (o->given >> row & 1);
}

const fx_command_row *fx_command_of(unsigned bit)
{
    for (int i = 0; i < fx_command_row_count; i++)
        if (fx_command_rows[i].bit == bit) return &fx_command_rows[i];
    return NULL;
}

/* ---- values ---- */

static bool in_choices(const char *choices, const char *word, const char **stored)
{
    static const char *const words[] = {"auto", "cpu", "onednn", "ref", "guard", "cuda", "even", "stream",
                                        "on",   "off", "bf16",   "f32", "peer",  "nccl", "lsa"};
    char list[128], key[64];
    if (snprintf(key, sizeof key, "|%s|", word) >= (int)sizeof key || strchr(word, '|')) return false;
    snprintf(list, sizeof list, "|%s|", choices);
    if (!strstr(list, key)) return false;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (!strcmp(words[i], word)) {
            *stored = words[i];
            return true;
        }
    return false; /* a choice of the table that words[] lacks: refused, never taken for the default */
}

static bool parse_whole(const char *text, long long *out)
{
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *text && !isspace((unsigned char)*text) && !*end && !errno;
}

static bool parse_real(const char *text, double *out)
{
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    return *text && !isspace((unsigned char)*text) && !*end && !errno && isfinite(*out);
}

static bool parse_seed(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return isdigit((unsigned char)*text) && !*end && !errno;
}

static fx_status set_value(fx_options *o, const fx_flag *f, const char *text)
{
    void *at = (char *)o + f->offset;
    long long whole;
    double real;
    switch (f->kind) {
    case FX_FLAG_SWITCH: *(bool *)at = true; break;
    case FX_FLAG_TEXT: *(const char **)at = text; break;
    case FX_FLAG_INT:
        if (!parse_whole(text, &whole) || (double)whole < f->lo || (double)whole > f->hi)
            return FX_FAIL(FX_EINVAL,
                           "--%s %s is not possible; it is a whole number from %.0f to %.0f; correct it or "
                           "leave --%s out",
                           f->name, text, f->lo, f->hi, f->name);
        *(int64_t *)at = whole;
        break;
    case FX_FLAG_REAL:
        if (!parse_real(text, &real) || real < f->lo || real > f->hi)
            return FX_FAIL(
                FX_EINVAL,
                "--%s %s is not possible; it is a number from %g to %g; correct it or leave --%s out",
                f->name, text, f->lo, f->hi, f->name);
        *(double *)at = real;
        break;
    case FX_FLAG_SEED:
        if (!parse_seed(text, (uint64_t *)at))
            return FX_FAIL(
                FX_EINVAL,
                "--%s %s is not possible; it is a whole number from 0 to %llu; leave it out for a random one",
                f->name, text, (unsigned long long)UINT64_MAX);
        break;
    case FX_FLAG_CHOICE:
        if (!in_choices(f->choices, text, (const char **)at))
            return FX_FAIL(FX_EINVAL, "--%s %s is not known; possible are %s; the default is %s", f->name,
                           text, f->choices, f->fallback);
        break;
    }
    o->given |= (uint64_t)1 << (f - fx_flags);
    return FX_OK;
}

fx_status fx_options_set(fx_options *o, const char *name, const char *value)
{
    const int row = fx_flag_find_of(o->command, name);
    FX_CHECK(row >= 0 && (fx_flags[row].commands & o->command) &&
                 (fx_flags[row].kind == FX_FLAG_SWITCH) == !value,
             FX_EINVAL, "--%s %s is no flag, or has no value or one too many", name, value ? value : "");
    return set_value(o, &fx_flags[row], value);
}

const char *fx_flag_text(const fx_options *o, const fx_flag *f, char *buf, size_t size)
{
    const void *at = (const char *)o + f->offset;
    switch (f->kind) {
    case FX_FLAG_SWITCH: return *(const bool *)at ? "on" : "off";
    case FX_FLAG_TEXT:
    case FX_FLAG_CHOICE: return *(const char *const *)at ? *(const char *const *)at : "";
    case FX_FLAG_INT: snprintf(buf, size, "%lld", (long long)*(const int64_t *)at); break;
    case FX_FLAG_REAL: snprintf(buf, size, "%.10g", *(const double *)at); break;
    case FX_FLAG_SEED: snprintf(buf, size, "%llu", (unsigned long long)*(const uint64_t *)at); break;
    }
    return buf;
}

/* ---- refusals ---- */

static int distance(const char *a, const char *b)
{
    enum { LONGEST = 32 };
    const size_t la = strlen(a), lb = strlen(b);
    int row[LONGEST + 1];
    if (la > LONGEST || lb > LONGEST) return LONGEST;
    for (size_t j = 0; j <= lb; j++) row[j] = (int)j;
    for (size_t i = 1; i <= la; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= lb; j++) {
            const int above = row[j], change = diagonal + (a[i - 1] != b[j - 1]);
            const int shift = 1 + (above < row[j - 1] ? above : row[j - 1]);
            row[j] = change < shift ? change : shift;
            diagonal = above;
        }
    }
    return row[lb];
}

bool fx_nearest(const char *word, const char *words, char *out, size_t size)
{
    int best = (int)strlen(word) / 2 + 2; /* about half of the letters must be right */
    bool found = false;
    char copy[1024], *next = NULL;
    snprintf(copy, sizeof copy, "%s", words);
    for (char *w = strtok_r(copy, "|", &next); w; w = strtok_r(NULL, "|", &next)) {
        const bool begins = strlen(word) >= 3 && !strncmp(w, word, strlen(word));
        const int d = begins ? 1 : distance(word, w);
        if (d >= best) continue;
        best = d;
        found = true;
        snprintf(out, size, "%s", w);
    }
    return found;
}

static fx_status unknown_flag(const fx_options *o, const char *arg, const char *name)
{
    char words[1024] = "", near[64];
    const fx_command_row *cmd = fx_command_of(o->command);
    for (int i = 0; i < fx_flag_count; i++) {
        if (!(fx_flags[i].commands & o->command)) continue;
        strcat(strcat(words, fx_flags[i].name), "|");
        if (fx_flags[i].alias) strcat(strcat(words, fx_flags[i].alias), "|");
    }
    if (name && fx_flag_find(name) >= 0)
        return FX_FAIL(FX_EINVAL, "%s is not a flag of %s; see 'fluxpar %s --help'", arg, cmd->name,
                       cmd->name);
    if (name && fx_nearest(name, words, near, sizeof near))
        return FX_FAIL(FX_EINVAL, "unknown flag %s; did you mean --%s?; see 'fluxpar %s --help'", arg, near,
                       cmd->name);
    return FX_FAIL(FX_EINVAL, "unknown flag %s; see 'fluxpar %s --help'", arg, cmd->name);
}

static fx_status unknown_command(const char *word)
{
    char words[256] = "", near[64];
    for (int i = 0; i < fx_command_row_count; i++) strcat(strcat(words, fx_command_rows[i].name), "|");
    if (!word)
        return FX_FAIL(FX_EINVAL, "no subcommand; it is one of %s; see 'fluxpar --help'",
                       "generate, selftest, bench, doctor, plan, inspect, info, version");
    if (word[0] == '-')
        return FX_FAIL(
            FX_EINVAL,
            "%s stands before the subcommand; write 'fluxpar generate %s ...'; see 'fluxpar --help'", word,
            word);
    if (fx_nearest(word, words, near, sizeof near))
        return FX_FAIL(FX_EINVAL, "unknown subcommand %s; did you mean %s?; see 'fluxpar --help'", word,
                       near);
    return FX_FAIL(FX_EINVAL,
                   "unknown subcommand %s; it is one of generate, selftest, bench, doctor, plan, inspect, "
                   "info, version; see "
                   "'fluxpar --help'",
                   word);
}

/* ---- the walk over argv ---- */

typedef struct args {
    int count, next;
    char *const *word;
} args;

/* The value after a flag: the rest of the same word, or the next word. */
static fx_status apply(fx_options *o, int row, args *a, const char *shown, const char *attached)
{
    const fx_flag *f = &fx_flags[row];
    if (f->kind == FX_FLAG_SWITCH) {
        if (attached) return FX_FAIL(FX_EINVAL, "%s takes no value; write --%s alone", shown, f->name);
        return set_value(o, f, NULL);
    }
    if (attached) return set_value(o, f, attached);
    if (a->next >= a->count)
        return FX_FAIL(FX_EINVAL, "%s has no value; write --%s %s (%s)", shown, f->name, f->arg, f->help);
    return set_value(o, f, a->word[a->next++]);
}

static fx_status parse_long(fx_options *o, args *a, const char *arg)
{
    char name[64];
    const char *equals = strchr(arg, '=');
    const size_t length = equals ? (size_t)(equals - arg - 2) : strlen(arg) - 2;
    if (length >= sizeof name) return unknown_flag(o, arg, NULL);
    memcpy(name, arg + 2, length);
    name[length] = 0;
    const int row = fx_flag_find_of(o->command, name);
    if (row < 0 || !(fx_flags[row].commands & o->command)) {
        char shown[80];
        snprintf(shown, sizeof shown, "--%s", name);
        return unknown_flag(o, shown, name);
    }
    char shown[80];
    snprintf(shown, sizeof shown, "--%s", name);
    return apply(o, row, a, shown, equals ? equals + 1 : NULL);
}

/* -qf is two switches, -W512 a flag with its value. */
static fx_status parse_letters(fx_options *o, args *a, const char *arg)
{
    for (const char *at = arg + 1; *at; at++) {
        const char shown[3] = {'-', *at, 0};
        if (*at == 's') return FX_FAIL(FX_EINVAL, "-s is ambiguous: use --steps or --seed");
        const int row = find_letter(*at);
        if (row < 0 || !(fx_flags[row].commands & o->command)) return unknown_flag(o, shown, NULL);
        if (fx_flags[row].kind != FX_FLAG_SWITCH) return apply(o, row, a, shown, at[1] ? at + 1 : NULL);
        FX_TRY(set_value(o, &fx_flags[row], NULL));
    }
    return FX_OK;
}

static fx_status positional(fx_options *o, const char *arg)
{
    const fx_command_row *cmd = fx_command_of(o->command);
    if (cmd->ranks || cmd->bit == FX_CMD_PLAN)
        return FX_FAIL(FX_EINVAL,
                       "'%s' stands alone; a prompt is given with -p and in quotes, a model with -m; see "
                       "'fluxpar %s --help'",
                       arg, cmd->name);
    if (o->path || o->command == FX_CMD_VERSION)
        return FX_FAIL(FX_EINVAL, "'%s' is one argument too many; the form is '%s'", arg, cmd->usage);
    o->path = arg;
    return FX_OK;
}

static fx_status parse_words(fx_options *o, args *a)
{
    bool flags = true;
    while (a->next < a->count) {
        const char *arg = a->word[a->next++];
        if (flags && !strcmp(arg, "--"))
            flags = false;
        else if (flags && !strncmp(arg, "--", 2))
            FX_TRY(parse_long(o, a, arg));
        else if (flags && arg[0] == '-' && arg[1])
            FX_TRY(parse_letters(o, a, arg));
        else
            FX_TRY(positional(o, arg));
    }
    return FX_OK;
}

static void set_defaults(fx_options *o)
{
    *o = (fx_options){.count = 1,
                      .guidance = -1,
                      .timeout = 60,
                      .grace = 20,
                      .gpus = 1,
                      .runs = 5,
                      .warmups = 1,
                      .merge = -1};
    for (int i = 0; i < fx_flag_count; i++)
        if (fx_flags[i].kind == FX_FLAG_CHOICE)
            in_choices(fx_flags[i].choices, fx_flags[i].fallback,
                       (const char **)((char *)o + fx_flags[i].offset));
}

static fx_status check_batch(const fx_options *o)
{
    FX_CHECK(o->batch || !(o->results || o->resume || fx_flag_given(o, "grace")), FX_EINVAL,
             "%s is for a batch; give its jobs with --batch JOBS.jsonl or leave it out",
             o->results  ? "--results"
             : o->resume ? "--resume"
                         : "--grace");
    FX_CHECK(!o->batch || (!o->prompt && !o->prompt_file), FX_EINVAL,
             "%s and --batch are both given; in a batch every line has its prompt; drop one",
             o->prompt ? "-p" : "--prompt-file");
    FX_CHECK(!o->batch || (*o->batch && (!o->results || *o->results)), FX_EINVAL,
             "the name of the %s is empty; give a file with --%s", o->batch && *o->batch ? "results" : "jobs",
             o->batch && *o->batch ? "results" : "batch");
    return FX_OK;
}

static fx_status check_required(const fx_options *o)
{
    if (o->help) return FX_OK;
    if (o->calibrate) return FX_OK; /* no picture is made */
    if (o->command & (FX_CMD_GENERATE | FX_CMD_SELFTEST | FX_CMD_BENCH | FX_CMD_PLAN))
        FX_CHECK(o->model && *o->model, FX_EINVAL,
                 "no model; give its folder with -m; the bundled one is launch/demo/model");
    if (fx_command_of(o->command)->ranks) FX_TRY(check_batch(o));
    if (fx_command_of(o->command)->ranks && !o->batch) {
        FX_CHECK(o->prompt || o->prompt_file || o->command != FX_CMD_GENERATE, FX_EINVAL,
                 "no prompt; say what to draw with -p; the empty prompt is -p ''");
        FX_CHECK(!o->prompt || !o->prompt_file, FX_EINVAL,
                 "-p and --prompt-file are both given; only one prompt is possible; drop one");
    }
    if (fx_command_of(o->command)->ranks) {
        FX_CHECK(!o->quiet || !o->verbose, FX_EINVAL,
                 "-q and -v are both given; they exclude each other; drop one");
        FX_CHECK(!o->output || *o->output, FX_EINVAL,
                 "the output name is empty; give -o FILE.png or leave -o out");
    }
    if (o->command == FX_CMD_INSPECT || o->command == FX_CMD_INFO)
        FX_CHECK(o->path && *o->path, FX_EINVAL, "no file; the form is '%s'",
                 fx_command_of(o->command)->usage);
    return FX_OK;
}

fx_status fx_options_parse(int argc, char *const argv[], fx_options *o)
{
    set_defaults(o);
    args a = {argc, 2, argv};
    const char *word = argc > 1 ? argv[1] : NULL;
    if (word && (!strcmp(word, "--help") || !strcmp(word, "-h")))
        o->command = FX_CMD_HELP;
    else if (word && !strcmp(word, "--version"))
        o->command = FX_CMD_VERSION;
    for (int i = 0; word && i < fx_command_row_count; i++)
        if (!strcmp(word, fx_command_rows[i].name)) o->command = fx_command_rows[i].bit;
    if (!o->command) return unknown_command(word);
    FX_TRY(parse_words(o, &a));
    return check_required(o);
}
