/* The one error channel of the libraries: a code that travels up through FX_TRY and a message with values
 * that stays with the thread that failed. launch/ reads both once, prints one line and turns the code into
 * the exit code. Also the stop flag, which a signal handler sets and every wait and step loop reads. */
#include "runtime/core/status.h"

#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[2048];
static _Thread_local char where[512];
static atomic_int stop_signal, stop_wish; /* lock-free, so a signal handler may write them */

fx_status fx_fail(fx_status code, const char *file, int line, const char *func, const char *fmt, ...)
{
    char text[sizeof message]; /* arguments may point into message (a caller adding words to fx_error()) */
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    memcpy(message, text, sizeof text);
    snprintf(where, sizeof where, "%s:%d %s", file, line, func);
    return code;
}

const char *fx_error(void)
{
    return message;
}

const char *fx_error_where(void)
{
    return where;
}

const char *fx_status_name(fx_status status)
{
    switch (status) {
    case FX_OK: return "FX_OK";
    case FX_EINVAL: return "FX_EINVAL";
    case FX_ESHAPE: return "FX_ESHAPE";
    case FX_EFORMAT: return "FX_EFORMAT";
    case FX_EREAD: return "FX_EREAD";
    case FX_EDEVICE: return "FX_EDEVICE";
    case FX_ECOMM: return "FX_ECOMM";
    case FX_ENUMERIC: return "FX_ENUMERIC";
    case FX_EWRITE: return "FX_EWRITE";
    case FX_ENOMEM: return "FX_ENOMEM";
    case FX_ESIGNAL: return "FX_ESIGNAL";
    }
    return "unknown status";
}

int fx_exit_code(fx_status status)
{
    switch (status) {
    case FX_OK: return 0;
    case FX_EINVAL: return 2;
    case FX_EFORMAT:
    case FX_EREAD: return 3;
    case FX_ESHAPE:
    case FX_EDEVICE: return 4;
    case FX_ECOMM: return 5;
    case FX_ENUMERIC: return 6;
    case FX_EWRITE: return 7;
    case FX_ENOMEM: return 8;
    /* A rank that learnt of the signal from a peer has no number of its own: report the polite one. */
    case FX_ESIGNAL:
        return 128 + (fx_stop_signal() ? fx_stop_signal() : fx_stop_wished() ? fx_stop_wished() : SIGTERM);
    }
    return 4;
}

void fx_stop_request(int signal_number)
{
    int none = 0; /* the first signal names the exit code */
    atomic_compare_exchange_strong(&stop_signal, &none, signal_number);
}

int fx_stop_signal(void)
{
    return atomic_load(&stop_signal);
}

void fx_stop_wish(int signal_number)
{
    atomic_store(&stop_wish, signal_number);
}

int fx_stop_wished(void)
{
    return atomic_load(&stop_wish);
}
