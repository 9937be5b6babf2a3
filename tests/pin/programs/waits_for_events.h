/* Calls that wait for children, locks, messages, events, signals and the results of rings. The
 * functions of waits.h are used. */

/* Children: one that ends, and one that holds a lock, which it says. */
static pid_t child;
static void make_child(void) {
    child = fork();
    must(child, "fork");
    if (child == 0) {
        pass_gate();
        _exit(7);
    }
}
static long wait_child(void) {
    int status = 0;
    return wait4(child, &status, 0, NULL) == child ? WEXITSTATUS(status) : -1;
}
static long waitid_child(void) {
    siginfo_t information;
    return waitid(P_PID, (id_t)child, &information, WEXITED) ? -1 : information.si_status;
}
static void make_lock(void) { must(descriptor = open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600), "lock"); }
static long lock_with(int file, int command) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return command ? fcntl(file, command, &whole) : flock(file, LOCK_EX);
}
static void make_holder(int command) {
    char byte;
    child = fork();
    must(child, "fork");
    if (child == 0) {
        /* A description of its own, as both kinds of locks but POSIX's belong to it. */
        must(lock_with(open("lock", O_RDWR), command), "lock");
        must(write(ended[1], "x", 1), "write");
        pass_gate();
        _exit(7);
    }
    must(read(ended[0], &byte, 1), "read");
}
static void hold_flock(void) { make_holder(0); }
static void hold_posix(void) { make_holder(F_SETLKW); }
static void hold_description(void) { make_holder(F_OFD_SETLKW); }
static long lock_flock(void) { return lock_with(descriptor, 0); }
static long lock_posix(void) { return lock_with(descriptor, F_SETLKW); }
static long lock_description(void) { return lock_with(descriptor, F_OFD_SETLKW); }
static void unlock(void) {
    struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    fcntl(descriptor, F_SETLK, &whole);
    fcntl(descriptor, F_OFD_SETLK, &whole);
    flock(descriptor, LOCK_UN);
    waitpid(child, NULL, 0);
}
static long wait_vfork(void) {
    int status = 0;
    /* The child runs in this memory until it ends. */
    const pid_t sharing = vfork();
    if (sharing == 0) {
        char byte;
        _exit(syscall(SYS_read, gate[0], &byte, 1) == 1 ? 7 : 1);
    }
    return waitpid(sharing, &status, 0) == sharing ? WEXITSTATUS(status) : -1;
}

/* System V and POSIX queues. */
struct text {
    long type;
    char bytes[1024];
};
static void make_messages(void) { must(identifier = msgget(IPC_PRIVATE, 0600), "msgget"); }
static void remove_messages(void) { msgctl(identifier, IPC_RMID, NULL); }
static long receive_sysv(void) {
    struct text text;
    return msgrcv(identifier, &text, sizeof text.bytes, 0, 0);
}
static void send_sysv(void) {
    const struct text text = {1, "x"};
    must(msgsnd(identifier, &text, 8, 0), "msgsnd");
}
static void fill_messages(void) {
    const struct text text = {1, "x"};
    while (msgsnd(identifier, &text, sizeof text.bytes, IPC_NOWAIT) == 0)
        ;
}
static long send_sysv_full(void) {
    const struct text text = {1, "x"};
    return msgsnd(identifier, &text, sizeof text.bytes, 0);
}
static void take_sysv(void) { must(receive_sysv(), "msgrcv"); }
static void make_semaphore(void) { must(identifier = semget(IPC_PRIVATE, 1, 0600), "semget"); }
static void remove_semaphore(void) { semctl(identifier, 0, IPC_RMID); }
static long wait_semaphore(void) {
    struct sembuf down = {0, -1, 0};
    return semop(identifier, &down, 1);
}
static long wait_semaphore_with_timeout(void) {
    struct sembuf down = {0, -1, 0};
    return semtimedop(identifier, &down, 1, &minute);
}
static void raise_semaphore(void) {
    struct sembuf up = {0, 1, 0};
    must(semop(identifier, &up, 1), "semop");
}
static void make_queue(void) {
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 8};
    char name[64];
    snprintf(name, sizeof name, "/sopin-pin-calls-%d", (int)getpid());
    must(queue = mq_open(name, O_RDWR | O_CREAT, 0600, &attributes), "mq_open");
    mq_unlink(name);
}
static long receive_queue(void) {
    char bytes[8];
    return mq_receive(queue, bytes, sizeof bytes, NULL);
}
static void send_queue(void) { must(mq_send(queue, "x", 1, 0), "mq_send"); }
static void fill_queue(void) {
    const struct timespec past = {0, 0};
    while (mq_timedsend(queue, "x", 1, 0, &past) == 0)
        ;
}
static long send_queue_full(void) { return mq_send(queue, "x", 1, 0); }
static void take_queue(void) { must(receive_queue(), "mq_receive"); }

/* Descriptors of events. */
static long read_descriptor(void) {
    char bytes[512];
    return read(descriptor, bytes, sizeof bytes);
}
static void make_inotify(void) {
    descriptor = inotify_init1(0);
    must(inotify_add_watch(descriptor, ".", IN_OPEN), "inotify");
}
static void open_directory(void) { close(open(".", O_RDONLY)); }
static void make_timer(void) { must(descriptor = timerfd_create(CLOCK_MONOTONIC, 0), "timerfd"); }
static void arm_timer(void) {
    const struct itimerspec soon = {{0, 0}, {0, 1}};
    must(timerfd_settime(descriptor, 0, &soon, NULL), "timerfd");
}
static void make_eventfd(void) { must(descriptor = eventfd(0, 0), "eventfd"); }
static void count_event(void) {
    const uint64_t one = 1;
    must(write(descriptor, &one, sizeof one), "write");
}
static void make_signalfd(void) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR2);
    must(descriptor = signalfd(-1, &signals, 0), "signalfd");
}
static void open_terminal(void) {
    must(listener = posix_openpt(O_RDWR | O_NOCTTY), "posix_openpt");
    must(grantpt(listener) ? -1 : unlockpt(listener), "unlockpt");
    must(descriptor = open(ptsname(listener), O_RDWR | O_NOCTTY), "terminal");
}
static void type_line(void) { must(write(listener, "x\n", 2), "write"); }

/* Signals. */
static long wait_signal(void) { return pause(); }
static long suspend(void) {
    sigset_t mask;
    sigfillset(&mask);
    sigdelset(&mask, SIGUSR1);
    return sigsuspend(&mask);
}
static long sleep_until_signal(void) { return nanosleep(&minute, NULL); }
static long wait_blocked(const struct timespec *timeout) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR2);
    return sigtimedwait(&signals, NULL, timeout);
}
static long wait_blocked_for_ever(void) { return wait_blocked(NULL); }
static long wait_blocked_a_minute(void) { return wait_blocked(&minute); }
static volatile sig_atomic_t in_handler;
static void read_in_handler(int number) {
    (void)number;
    in_handler = read_stream() == 1 ? 5 : -1;
}
static long call_in_handler(void) {
    const struct sigaction action = {.sa_handler = read_in_handler};
    sigaction(SIGHUP, &action, NULL);
    raise(SIGHUP);
    return in_handler;
}
static long read_with_pending(void) {
    sigset_t pending;
    raise(SIGUSR2);
    const long result = read_stream();
    sigpending(&pending);
    wrong += !sigismember(&pending, SIGUSR2);
    return result;
}

/* Rings and asynchronous input. */
static struct io_uring_params parameters;
static char *ring;
static struct io_uring_sqe *entries;
static void make_ring(void) {
    descriptor = (int)syscall(SYS_io_uring_setup, 4, &parameters);
    must(descriptor, "io_uring_setup");
    const size_t submissions = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
    const size_t completions = parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe);
    const size_t size = submissions > completions ? submissions : completions;
    ring = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, IORING_OFF_SQ_RING);
    entries = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, IORING_OFF_SQES);
    must(ring == MAP_FAILED || entries == MAP_FAILED ? -1 : 0, "ring");
}
static unsigned *in_ring(unsigned offset) { return (unsigned *)(void *)(ring + offset); }
static void submit_poll(void) {
    const unsigned tail = *in_ring(parameters.sq_off.tail), index = tail & *in_ring(parameters.sq_off.ring_mask);
    memset(&entries[index], 0, sizeof *entries);
    entries[index].opcode = IORING_OP_POLL_ADD;
    entries[index].fd = stream[0];
    entries[index].poll32_events = POLLIN;
    in_ring(parameters.sq_off.array)[index] = index;
    __atomic_store_n(in_ring(parameters.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
    must(syscall(SYS_io_uring_enter, descriptor, 1, 0, 0, NULL, 0), "io_uring_enter");
}
static long enter_ring(void) { return syscall(SYS_io_uring_enter, descriptor, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0); }
static void take_completion(void) {
    (*in_ring(parameters.cq_off.head))++;
    drain();
}
static aio_context_t context;
static void make_context(void) { must(syscall(SYS_io_setup, 4, &context), "io_setup"); }
static void submit_aio_poll(void) {
    static struct iocb block;
    struct iocb *blocks[] = {&block};
    block = (struct iocb){.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (unsigned)stream[0], .aio_buf = POLLIN};
    must(syscall(SYS_io_submit, context, 1, blocks), "io_submit");
}
static long get_events(void) {
    struct io_event event;
    return syscall(SYS_io_getevents, context, 1, 1, &event, NULL);
}
