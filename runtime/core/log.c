/* Messages for people, on their way from any library to the sink that launch/ installs. Without a sink they
 * vanish: a library has no opinion about where its user wants to read. */
#include "runtime/core/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

static _Atomic(fx_log_sink) sink;

void fx_log_install(fx_log_sink function)
{
    atomic_store(&sink, function);
}

void fx_log(fx_log_level level, const char *fmt, ...)
{
    fx_log_sink function = atomic_load(&sink);
    if (!function) return;
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    function(level, text);
}
