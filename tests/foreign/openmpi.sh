# Open MPI: two processes of a small program. Its modules need Debian's libnuma.so.1, whose
# initialiser runs before it can be pinned. It is pinned while the threads have stopped, and so are
# objects that are loaded with it.
# packages: openmpi-bin libopenmpi-dev gcc
# needs: mpirun mpicc
# pinned: /libmpi\.so
# pinned: /mca_btl_self\.so
# pinned: /libnuma\.so
# pinned: /libc\.so\.6
# results: 3
cat >ring.c <<'C'
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, size, sum = 0;
    static int data[100000], all[100000];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int i = 0; i < 100000; i++)
        data[i] = i * (rank + 1);
    MPI_Allreduce(data, all, 100000, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < 100000; i++)
        sum ^= all[i];
    MPI_Sendrecv_replace(&rank, 1, MPI_INT, (rank + 1) % size, 0, (rank + size - 1) % size, 0, MPI_COMM_WORLD,
                         MPI_STATUS_IGNORE);
    for (int i = 0; i < size; i++) {
        MPI_Barrier(MPI_COMM_WORLD);
        if (i == rank)
            printf("%d of %d: %d\n", rank, size, sum);
    }
    MPI_Finalize();
    return 0;
}
C
mpicc -o ring ring.c
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun --oversubscribe --mca btl self,tcp --mca btl_tcp_if_include lo -n 2 ./ring 2>errors | sort
grep -ci 'signal\|abort\|segmentation' errors || true
ompi_info --parsable 2>/dev/null | grep '^mca:' | cut -d : -f 1-4 | sort -u
