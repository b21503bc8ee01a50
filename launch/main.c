/* fluxpar: the subcommand table and the only exit() outside signal handlers. Parsing, then either a command
 * that needs no ranks (it runs on the launcher's first process, and MPI never starts) or one that runs on all
 * of them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/commands.h"
#include "launch/signals.h"
#include "launch/talk.h"

static const struct {
    unsigned bit;
    fx_status (*run)(fx_run *, const fx_options *);
} commands[] = {
    {FX_CMD_GENERATE, fx_cmd_generate}, {FX_CMD_SELFTEST, fx_cmd_selftest}, {FX_CMD_BENCH, fx_cmd_bench},
    {FX_CMD_DOCTOR, fx_cmd_doctor},     {FX_CMD_PLAN, fx_cmd_plan},         {FX_CMD_INSPECT, fx_cmd_inspect},
    {FX_CMD_INFO, fx_cmd_info},         {FX_CMD_VERSION, fx_cmd_version},   {FX_CMD_HELP, fx_cmd_help}};

fx_status fx_results_written(void)
{
    if (!fflush(stdout) && !ferror(stdout)) return FX_OK;
    return FX_FAIL(FX_EWRITE, "the standard output cannot be written; %s; check where it goes",
                   strerror(errno));
}

static fx_status run(fx_run *s, const fx_options *o)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (commands[i].bit == o->command) return commands[i].run(s, o);
    return FX_FAIL(FX_EINVAL, "no such subcommand");
}

/* Without ranks: one process works. The others leave last, because a launcher ends all when one fails. */
static int alone(fx_run *s, const fx_options *o, fx_status parsed)
{
    if (s->rank != 0) {
        if (parsed != FX_OK) fx_signals_leave_last(fx_exit_code(parsed));
        return fx_exit_code(parsed);
    }
    const fx_status st = parsed != FX_OK ? parsed : o->help ? fx_cmd_help(s, o) : run(s, o);
    if (st != FX_OK) fx_talk_error(st, 0, fx_error());
    return fx_exit_code(st);
}

int main(int argc, char **argv)
{
    fx_options o;
    fx_run s;
    const fx_status parsed = fx_options_parse(argc, argv, &o);
    fx_run_prepare(argv, &o, &s);
    const fx_command_row *cmd = fx_command_of(o.command);
    if (!cmd || !cmd->ranks || o.help) exit(alone(&s, &o, parsed));
    fx_status st = fx_run_open(&s, &o, parsed);
    if (st == FX_EINVAL && parsed == FX_OK && o.command == FX_CMD_DOCTOR) { /* what it is for */
        snprintf(s.trouble, sizeof s.trouble, "%s", fx_error());
        if (s.comm) fx_comm_forgive(s.comm);
        st = FX_OK;
    }
    if (st == FX_OK) st = run(&s, &o);
    const int code = fx_run_end(&s, st);
    if (s.lost) _exit(code); /* no handlers of MPI or OpenMP: they could wait for peers that are gone */
    exit(code);
}
