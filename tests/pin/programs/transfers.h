/* Calls that transfer more than there is room or data for, and of which an interruption leaves a
 * part. The rest is transferred afterwards. */

#include <sys/sendfile.h>
#include <sys/uio.h>

static size_t transferred;

static long note_transferred(ssize_t count) {
    transferred = count < 0 ? 0 : (size_t)count;
    return count;
}

/* Pipes. */
static long write_large(void) { return note_transferred(write(stream[1], large, sizeof large)); }
static long write_large_parts(void) {
    const size_t half = sizeof large / 2;
    struct iovec parts[] = {{large, half}, {large + half, half}};
    return note_transferred(writev(stream[1], parts, 2));
}
static void write_rest(void) {
    while (transferred < sizeof large) {
        const ssize_t count = write(stream[1], large, sizeof large - transferred);
        must(count, "write");
        transferred += (size_t)count;
    }
}
static void read_all(int from) {
    for (size_t left = sizeof large; left > 0;) {
        const ssize_t count = read(from, large, left);
        must(count, "read");
        left -= (size_t)count;
    }
}
static void read_large(void) { read_all(stream[0]); }

/* Sockets that take a part. */
static long send_large(void) { return note_transferred(send(sockets[0], large, sizeof large, 0)); }
static long send_large_message(void) {
    struct iovec part = {large, sizeof large};
    const struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    return note_transferred(sendmsg(sockets[0], &message, 0));
}
static void make_file(void) { must(descriptor = open("large", O_RDWR | O_CREAT | O_CLOEXEC, 0600), "open"); }
static void fill_file(void) {
    must(pwrite(descriptor, large, sizeof large, 0), "pwrite");
    must(lseek(descriptor, 0, SEEK_SET), "lseek");
}
static long send_large_file(void) {
    return note_transferred(sendfile(sockets[0], descriptor, NULL, 2 * sizeof large));
}
static void send_rest(void) {
    while (transferred < sizeof large) {
        const ssize_t count = send(sockets[0], large, sizeof large - transferred, 0);
        must(count, "send");
        transferred += (size_t)count;
    }
}
static void receive_large(void) { read_all(sockets[1]); }

/* Sockets that wait until everything is there. */
static char ten[10];
static void send_half(void) { must(send(sockets[1], "01234", 5, 0), "send"); }
static void send_other_half(void) { must(send(sockets[1], "56789", 5, 0), "send"); }
static long receive_all(void) { return note_transferred(recv(sockets[0], ten, sizeof ten, MSG_WAITALL)); }
static long receive_all_message(void) {
    struct iovec parts[] = {{ten, 3}, {ten + 3, 7}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    return note_transferred(recvmsg(sockets[0], &message, MSG_WAITALL));
}
static long receive_two_messages(void) {
    struct iovec parts[] = {{ten, 5}, {ten + 5, 5}};
    struct mmsghdr messages[] = {{{.msg_iov = parts, .msg_iovlen = 1}, 0}, {{.msg_iov = parts + 1, .msg_iovlen = 1}, 0}};
    const int count = recvmmsg(sockets[0], messages, 2, 0, NULL);
    transferred = count < 0 ? 0 : 5 * (size_t)count;
    return count;
}
static void receive_rest(void) {
    while (transferred < sizeof ten) {
        const ssize_t count = recv(sockets[0], ten + transferred, sizeof ten - transferred, 0);
        must(count, "recv");
        transferred += (size_t)count;
    }
    wrong += memcmp(ten, "0123456789", 10) != 0;
}

static const struct situation transfers[] = {
    {"write_large", .call = write_large, .finish = write_rest, .release = read_large, .flags = TRANSFER},
    {"writev_large", .call = write_large_parts, .finish = write_rest, .release = read_large, .flags = TRANSFER},
    {"send_large", .call = send_large, .finish = send_rest, .release = receive_large, .flags = TRANSFER},
    {"sendmsg_large", .call = send_large_message, .finish = send_rest, .release = receive_large, .flags = TRANSFER},
    {"sendfile_large", make_file, fill_file, send_large_file, send_rest, receive_large, .flags = TRANSFER},
    {"recv_all", .prepare = send_half, .call = receive_all, .finish = receive_rest, .release = send_other_half, .flags = TRANSFER},
    {"recvmsg_all", .prepare = send_half, .call = receive_all_message, .finish = receive_rest, .release = send_other_half, .flags = TRANSFER},
    {"recvmmsg_all", .prepare = send_half, .call = receive_two_messages, .finish = receive_rest, .release = send_other_half, .flags = TRANSFER},
};
