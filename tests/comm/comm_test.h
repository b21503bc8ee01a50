/* Parts of check_comm that have a file of their own. */
#ifndef FX_TESTS_COMM_TEST_H
#define FX_TESTS_COMM_TEST_H

#include "parallel/comm.h"

/* Phases and their parts as an observer sees them; which rank made a vote fail. */
void comm_test_phases(fx_comm *);
/* A second communicator for memory that is not the host's. */
void comm_test_rows(fx_comm *);
/* A plan communicator moves nothing, and shows what it was asked for. */
void comm_test_plan(void);

#endif
