/* The second half of t_png. path: of a file to be written and removed. */
#ifndef FX_TESTS_PNG_STRIPS_H
#define FX_TESTS_PNG_STRIPS_H

void check_strips(const char *path);

#endif
