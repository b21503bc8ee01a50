/* The subcommands. Each returns a status; main.c prints the error line and exits. */
#ifndef FX_LAUNCH_COMMANDS_H
#define FX_LAUNCH_COMMANDS_H

#include "launch/bootstrap.h"
#include "launch/options.h"

fx_status fx_cmd_generate(fx_run *, const fx_options *);
fx_status fx_cmd_selftest(fx_run *, const fx_options *);
fx_status fx_cmd_bench(fx_run *, const fx_options *);
fx_status fx_cmd_doctor(fx_run *, const fx_options *);
fx_status fx_cmd_calibrate(fx_run *, const fx_options *); /* of bench */
fx_status fx_cmd_plan(fx_run *, const fx_options *);
fx_status fx_cmd_inspect(fx_run *, const fx_options *);
fx_status fx_cmd_info(fx_run *, const fx_options *);
fx_status fx_cmd_version(fx_run *, const fx_options *);
fx_status fx_cmd_help(fx_run *, const fx_options *);

/* Flushes the standard output; FX_EWRITE when something could not be written. */
fx_status fx_results_written(void);

#endif
