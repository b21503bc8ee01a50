/* Errors: one type, one rule. A library function that can fail returns fx_status; the first failure writes
 * the message (with values) and callers only FX_TRY. Libraries never print and never exit: launch/ does both.
 * Message form: "what; why; what to do" (the prefix "fluxpar: error: rank R (host, device): " is added by
 * launch/). */
#ifndef FX_CORE_STATUS_H
#define FX_CORE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    FX_OK = 0,
    FX_EINVAL,   /* wrong request or argument           exit 2 */
    FX_ESHAPE,   /* internal contract broken (a bug)    exit 4 */
    FX_EFORMAT,  /* model file: content                 exit 3 */
    FX_EREAD,    /* model file: cannot be read          exit 3 */
    FX_EDEVICE,  /* device, driver or library call      exit 4 */
    FX_ECOMM,    /* communication, peer lost, deadline  exit 5 */
    FX_ENUMERIC, /* non-finite numbers                  exit 6 */
    FX_EWRITE,   /* output                              exit 7 */
    FX_ENOMEM,   /* memory                              exit 8 */
    FX_ESIGNAL   /* stopped by a signal                 exit 128 + signal */
} fx_status;

/* Stores "message" for this thread and returns code. file, line and func are shown with -v only. */
#if defined(__GNUC__)
__attribute__((format(printf, 5, 6)))
#endif
fx_status
fx_fail(fx_status code, const char *file, int line, const char *func, const char *fmt, ...);

const char *fx_error(void);            /* this thread's last message, "" when none */
const char *fx_error_where(void);      /* "file:line func" of that message */
const char *fx_status_name(fx_status); /* "FX_EFORMAT" */
int fx_exit_code(fx_status);           /* the documented exit code; FX_ESIGNAL gives 128 + fx_stop_signal() */

/* The stop flag: set by a signal handler, read between steps and inside every wait. 0 = go on. */
void fx_stop_request(int signal_number); /* async-signal-safe */
int fx_stop_signal(void);
/* A wish to stop a picture at the end of its step, on all ranks that make it (runtime/watch.h); waits do not see it, so that
 * these ranks can go on with something else. */
void fx_stop_wish(int signal_number); /* async-signal-safe */
int fx_stop_wished(void);

#ifdef __clang_analyzer__ /* it does not see that fx_fail returns its first argument, which is never FX_OK */
#define FX_FAIL(code, ...) (fx_fail((code), __FILE__, __LINE__, __func__, __VA_ARGS__), (code))
#else
#define FX_FAIL(code, ...) fx_fail((code), __FILE__, __LINE__, __func__, __VA_ARGS__)
#endif
#define FX_CHECK(ok, code, ...)                                                                              \
    do {                                                                                                     \
        if (!(ok)) return FX_FAIL((code), __VA_ARGS__);                                                      \
    } while (0)
#define FX_TRY(call)                                                                                         \
    do {                                                                                                     \
        fx_status st_ = (call);                                                                              \
        if (st_ != FX_OK) return st_;                                                                        \
    } while (0)
/* The same for a function with one cleanup label: needs a local `fx_status st` and a label `out`. */
#define FX_TRY_OUT(call)                                                                                     \
    do {                                                                                                     \
        st = (call);                                                                                         \
        if (st != FX_OK) goto out;                                                                           \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
