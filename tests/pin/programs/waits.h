/* Calls that wait until another process does something. */

static int descriptor = -1, listener = -1, epoll = -1, identifier = -1;
static mqd_t queue = -1;
static const struct timespec minute = {60, 0};
static char large[1 << 20];

static void write_byte(void) { must(write(stream[1], "x", 1), "write"); }
static void open_gate(void) { must(write(gate[1], "x", 1), "gate"); }
static void pass_gate(void) {
    char byte;
    must(read(gate[0], &byte, 1), "gate");
}
static void drain(void) {
    char byte;
    must(read(stream[0], &byte, 1), "read");
}
static void interrupt(void) { must(kill(caller, SIGUSR1), "kill"); }
static void signal_blocked(void) { must(kill(caller, SIGUSR2), "kill"); }

/* Pipes. */
static long read_stream(void) {
    char byte;
    return read(stream[0], &byte, 1);
}
static void fill_pipe(void) {
    char page[4096] = {0};
    fcntl(filled[1], F_SETFL, O_NONBLOCK);
    while (write(filled[1], page, sizeof page) > 0)
        ;
    /* Single bytes still fit into a page that is not full. */
    while (write(filled[1], page, 1) > 0)
        ;
    fcntl(filled[1], F_SETFL, 0);
}
static long write_full(void) { return write(filled[1], "x", 1); }
static void empty_page(void) {
    char page[4096];
    must(read(filled[0], page, sizeof page), "read");
}
static void make_fifo(void) {
    unlink("fifo");
    must(mkfifo("fifo", 0600), "mkfifo");
}
static long open_fifo(void) {
    descriptor = open("fifo", O_RDONLY);
    return descriptor < 0 ? -1 : 0;
}
static void open_other_end(void) {
    const int other = open("fifo", O_WRONLY);
    must(other, "open");
    close(other);
}
static void close_descriptor(void) { close(descriptor); }

/* Futexes. */
static long futex(int operation, int value, const struct timespec *timeout) {
    return syscall(SYS_futex, &shared->word, operation, value, timeout, NULL, ~0u);
}
static void clear_word(void) { shared->word = 0; }
static long wait_futex(void) { return futex(FUTEX_WAIT, 0, NULL); }
static long wait_futex_with_timeout(void) { return futex(FUTEX_WAIT, 0, &minute); }
static void wake_futex(void) {
    shared->word = 1;
    must(futex(FUTEX_WAKE, 1, NULL), "futex");
}

/* Readiness. */
static long poll_stream(void) {
    struct pollfd waited_for = {stream[0], POLLIN, 0};
    return poll(&waited_for, 1, -1);
}
static long ppoll_stream(void) {
    struct pollfd waited_for = {stream[0], POLLIN, 0};
    sigset_t none;
    sigemptyset(&none);
    return ppoll(&waited_for, 1, &minute, &none);
}
static long select_stream(void) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(stream[0], &set);
    return select(stream[0] + 1, &set, NULL, NULL, NULL);
}
static long pselect_stream(void) {
    fd_set set;
    sigset_t none;
    sigemptyset(&none);
    FD_ZERO(&set);
    FD_SET(stream[0], &set);
    return pselect(stream[0] + 1, &set, NULL, NULL, &minute, &none);
}
static void make_epoll(void) {
    struct epoll_event event = {.events = EPOLLIN};
    epoll = epoll_create1(0);
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, stream[0], &event), "epoll");
}
static long wait_epoll(void) {
    struct epoll_event event;
    return epoll_wait(epoll, &event, 1, -1);
}
static long pwait_epoll(void) {
    struct epoll_event event;
    sigset_t none;
    sigemptyset(&none);
    return epoll_pwait(epoll, &event, 1, -1, &none);
}

/* Sockets. */
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t address_length;
static void listen_here(void) {
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "sopin-pin-calls-%d", (int)getpid());
    address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1));
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    must(bind(listener, (struct sockaddr *)&address, address_length), "bind");
    must(listen(listener, 0), "listen");
}
static void limit_time(int socket, int option, long seconds) {
    const struct timeval limit = {seconds, 0};
    must(setsockopt(socket, SOL_SOCKET, option, &limit, sizeof limit), "setsockopt");
}
static void listen_with_timeout(void) {
    listen_here();
    limit_time(listener, SO_RCVTIMEO, 60);
}
static int connect_one(int flags) {
    const int one = socket(AF_UNIX, SOCK_STREAM | flags, 0);
    if (connect(one, (struct sockaddr *)&address, address_length) == 0)
        return one;
    close(one);
    return -1;
}
static long accept_one(void) {
    descriptor = accept(listener, NULL, NULL);
    return descriptor < 0 ? -1 : 0;
}
static void connect_other(void) { must(connect_one(0), "connect"); }
static void fill_backlog(void) {
    while (connect_one(SOCK_NONBLOCK) >= 0)
        ;
}
static long connect_full(void) { return connect_one(0) < 0 ? -1 : 0; }
static long connect_with_timeout(void) {
    const int one = socket(AF_UNIX, SOCK_STREAM, 0);
    limit_time(one, SO_SNDTIMEO, 60);
    return connect(one, (struct sockaddr *)&address, address_length);
}
static void accept_first(void) { must(accept(listener, NULL, NULL), "accept"); }
static void with_timeout(void) {
    limit_time(sockets[0], SO_RCVTIMEO, 60);
    limit_time(sockets[0], SO_SNDTIMEO, 60);
}
static long receive(void) {
    char byte;
    return recv(sockets[0], &byte, 1, 0);
}
static long receive_message(void) {
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    return recvmsg(sockets[0], &message, 0);
}
static void send_one(void) { must(send(sockets[1], "x", 1, 0), "send"); }
static void fill_socket(void) {
    while (send(sockets[0], large, 4096, MSG_DONTWAIT) > 0)
        ;
}
static long send_full(void) { return send(sockets[0], "x", 1, 0); }
static void empty_socket(void) {
    static char bytes[1 << 20];
    while (recv(sockets[1], bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
}

#include "waits_for_events.h"

static const struct situation waits[] = {
    {"read", .call = read_stream, .release = write_byte},
    {"write", .prepare = fill_pipe, .call = write_full, .release = empty_page},
    {"open_fifo", make_fifo, .call = open_fifo, .finish = close_descriptor, .release = open_other_end},
    {"futex", .prepare = clear_word, .call = wait_futex, .release = wake_futex},
    {"futex_before_timeout", .prepare = clear_word, .call = wait_futex_with_timeout, .release = wake_futex},
    {"poll", .call = poll_stream, .finish = drain, .release = write_byte},
    {"ppoll", .call = ppoll_stream, .finish = drain, .release = write_byte},
    {"select", .call = select_stream, .finish = drain, .release = write_byte},
    {"pselect", .call = pselect_stream, .finish = drain, .release = write_byte},
    {"epoll_wait", make_epoll, .call = wait_epoll, .finish = drain, .release = write_byte, .flags = INTERRUPTED},
    {"epoll_pwait", make_epoll, .call = pwait_epoll, .finish = drain, .release = write_byte, .flags = INTERRUPTED},
    {"accept", listen_here, .call = accept_one, .finish = close_descriptor, .release = connect_other},
    {"accept_before_timeout", listen_with_timeout, .call = accept_one, .finish = close_descriptor, .release = connect_other, .flags = INTERRUPTED},
    {"connect", listen_here, fill_backlog, connect_full, .release = accept_first},
    {"connect_before_timeout", listen_here, fill_backlog, connect_with_timeout, .release = accept_first, .flags = INTERRUPTED},
    {"recv", .call = receive, .release = send_one},
    {"recv_before_timeout", with_timeout, .call = receive, .release = send_one, .flags = INTERRUPTED},
    {"recvmsg", .call = receive_message, .release = send_one},
    {"recvmsg_before_timeout", with_timeout, .call = receive_message, .release = send_one, .flags = INTERRUPTED},
    {"send", .prepare = fill_socket, .call = send_full, .release = empty_socket},
    {"send_before_timeout", with_timeout, fill_socket, send_full, .release = empty_socket, .flags = INTERRUPTED},
    {"wait4", .prepare = make_child, .call = wait_child, .release = open_gate},
    {"waitid", .prepare = make_child, .call = waitid_child, .release = open_gate},
    {"vfork", .call = wait_vfork, .release = open_gate},
    {"flock", make_lock, hold_flock, .call = lock_flock, .finish = unlock, .release = open_gate},
    {"fcntl", make_lock, hold_posix, .call = lock_posix, .finish = unlock, .release = open_gate},
    {"fcntl_of_description", make_lock, hold_description, .call = lock_description, .finish = unlock, .release = open_gate},
    {"msgrcv", make_messages, .call = receive_sysv, .release = send_sysv, .clean_up = remove_messages},
    {"msgsnd", make_messages, fill_messages, send_sysv_full, .release = take_sysv, .clean_up = remove_messages},
    {"semop", make_semaphore, .call = wait_semaphore, .release = raise_semaphore, .clean_up = remove_semaphore, .flags = INTERRUPTED},
    {"semtimedop_before_timeout", make_semaphore, .call = wait_semaphore_with_timeout, .release = raise_semaphore, .clean_up = remove_semaphore, .flags = INTERRUPTED},
    {"mq_receive", make_queue, .call = receive_queue, .release = send_queue},
    {"mq_send", make_queue, fill_queue, send_queue_full, .release = take_queue},
    {"inotify", make_inotify, .call = read_descriptor, .release = open_directory},
    {"timerfd", make_timer, .call = read_descriptor, .release = arm_timer},
    {"eventfd", make_eventfd, .call = read_descriptor, .release = count_event},
    {"signalfd", make_signalfd, .call = read_descriptor, .release = signal_blocked},
    {"terminal", open_terminal, .call = read_descriptor, .release = type_line},
    {"pause", .call = wait_signal, .release = interrupt},
    {"sigsuspend", .call = suspend, .release = interrupt},
    {"nanosleep_interrupted", .call = sleep_until_signal, .release = interrupt},
    {"sigwaitinfo", .call = wait_blocked_for_ever, .release = signal_blocked, .flags = INTERRUPTED},
    {"sigtimedwait_before_timeout", .call = wait_blocked_a_minute, .release = signal_blocked, .flags = INTERRUPTED},
    {"in_handler", .call = call_in_handler, .release = write_byte},
    {"pending_signal", .call = read_with_pending, .release = write_byte},
    {"io_uring_enter", make_ring, submit_poll, enter_ring, take_completion, write_byte, .flags = INTERRUPTED | STORES},
    {"io_getevents", make_context, submit_aio_poll, get_events, drain, write_byte, .flags = INTERRUPTED | STORES},
};
