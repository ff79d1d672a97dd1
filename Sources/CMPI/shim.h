#include <mpi.h>

// What MPI has as macros, which Swift doesn't see.
static inline MPI_Comm ck_mpi_world(void) { return MPI_COMM_WORLD; }
static inline MPI_Datatype ck_mpi_byte(void) { return MPI_BYTE; }
static inline MPI_Datatype ck_mpi_float(void) { return MPI_FLOAT; }
static inline MPI_Op ck_mpi_sum(void) { return MPI_SUM; }
static inline MPI_Errhandler ck_mpi_errors_return(void) { return MPI_ERRORS_RETURN; }
static inline MPI_Info ck_mpi_no_info(void) { return MPI_INFO_NULL; }
static inline int ck_mpi_test_all(int count, MPI_Request *requests, int *done) {
  return MPI_Testall(count, requests, done, MPI_STATUSES_IGNORE);
}
