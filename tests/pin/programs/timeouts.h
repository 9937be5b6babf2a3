/* Calls that end by their timeout, after a period. */

/* A number of seconds. */
static struct timespec period;

static struct timespec after_period(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_sec += period.tv_sec;
    return time;
}

static long sleep_relative(void) { return nanosleep(&period, NULL); }
static long sleep_on_clock(void) { return -clock_nanosleep(CLOCK_MONOTONIC, 0, &period, NULL); }
static long sleep_absolute(void) {
    const struct timespec time = after_period(CLOCK_MONOTONIC);
    return -clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}
static long poll_period(void) { return poll(NULL, 0, (int)period.tv_sec * 1000); }
static long ppoll_period(void) { return ppoll(NULL, 0, &period, NULL); }
static long select_period(void) {
    struct timeval limit = {period.tv_sec, 0};
    return select(0, NULL, NULL, NULL, &limit);
}
static long pselect_period(void) { return pselect(0, NULL, NULL, NULL, &period, NULL); }
static long futex_period(void) { return futex(FUTEX_WAIT, 0, &period); }
static long futex_absolute(void) {
    const struct timespec time = after_period(CLOCK_MONOTONIC);
    return futex(FUTEX_WAIT_BITSET, 0, &time);
}
static long epoll_period(void) {
    struct epoll_event event;
    return epoll_wait(epoll, &event, 1, (int)period.tv_sec * 1000);
}
static long epoll_pwait2_period(void) {
    struct epoll_event event;
    return syscall(441 /* SYS_epoll_pwait2 */, epoll, &event, 1, &period, NULL, 0);
}
static long sigtimedwait_period(void) { return wait_blocked(&period); }
static long semaphore_period(void) {
    struct sembuf down = {0, -1, 0};
    return semtimedop(identifier, &down, 1, &period);
}
static long events_period(void) {
    struct io_event event;
    return syscall(SYS_io_getevents, context, 1, 1, &event, &period);
}
static void receive_within_period(void) { limit_time(sockets[0], SO_RCVTIMEO, period.tv_sec); }
static void send_within_period(void) { limit_time(sockets[0], SO_SNDTIMEO, period.tv_sec); }
static void accept_within_period(void) {
    listen_here();
    limit_time(listener, SO_RCVTIMEO, period.tv_sec);
}
static long queue_period(void) {
    const struct timespec time = after_period(CLOCK_REALTIME);
    char bytes[8];
    return mq_timedreceive(queue, bytes, sizeof bytes, NULL, &time);
}
static long ring_period(void) {
    const struct io_uring_getevents_arg argument = {.ts = (uintptr_t)&period};
    return syscall(SYS_io_uring_enter, descriptor, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument,
                   sizeof argument);
}

static const struct situation timeouts[] = {
    {"nanosleep", .call = sleep_relative},
    {"clock_nanosleep", .call = sleep_on_clock},
    {"clock_nanosleep_absolute", .call = sleep_absolute},
    {"poll_timeout", .call = poll_period},
    {"ppoll_timeout", .call = ppoll_period},
    {"select_timeout", .call = select_period},
    {"pselect_timeout", .call = pselect_period},
    {"futex_timeout", .prepare = clear_word, .call = futex_period},
    {"futex_absolute", .prepare = clear_word, .call = futex_absolute},
    {"epoll_wait_timeout", make_epoll, .call = epoll_period, .flags = INTERRUPTED},
    {"epoll_pwait2_timeout", make_epoll, .call = epoll_pwait2_period, .flags = INTERRUPTED},
    {"sigtimedwait_timeout", .call = sigtimedwait_period, .flags = INTERRUPTED},
    {"semtimedop_timeout", make_semaphore, .call = semaphore_period, .clean_up = remove_semaphore, .flags = INTERRUPTED},
    {"io_getevents_timeout", make_context, .call = events_period, .flags = INTERRUPTED | STORES},
    {"recv_timeout", receive_within_period, .call = receive, .flags = INTERRUPTED},
    {"recvmsg_timeout", receive_within_period, .call = receive_message, .flags = INTERRUPTED},
    {"accept_timeout", accept_within_period, .call = accept_one, .flags = INTERRUPTED},
    {"send_timeout", send_within_period, fill_socket, .call = send_full, .flags = INTERRUPTED},
    {"mq_receive_timeout", make_queue, .call = queue_period},
    {"io_uring_enter_timeout", make_ring, .call = ring_period, .flags = INTERRUPTED | STORES},
};
