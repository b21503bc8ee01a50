/* Messages for people. Libraries do not print: they call fx_log, and launch/ installs the sink (rank prefix,
 * -q/-v). */
#ifndef FX_CORE_LOG_H
#define FX_CORE_LOG_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { FX_LOG_WARN, FX_LOG_NOTE, FX_LOG_DETAIL } fx_log_level;
typedef void (*fx_log_sink)(fx_log_level, const char *message);

void fx_log_install(fx_log_sink); /* NULL: silence (the default) */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void fx_log(fx_log_level, const char *fmt, ...);

#ifdef __cplusplus
}
#endif
#endif
