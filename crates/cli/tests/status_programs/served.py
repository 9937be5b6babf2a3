"""Maps the file of a FUSE file system, in a mount namespace of its own, whose server then answers nothing."""

import ctypes
import mmap
import os
import signal
import struct
import sys

CLONE_NEWNS, MS_PRIVATE, MS_REC, PR_SET_PDEATHSIG = 0x20000, 1 << 18, 1 << 14, 1
LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, INIT, BATCH_FORGET = 1, 2, 3, 14, 15, 17, 26, 42
# With "unread" the server accepts the first request to read the file, and answers nothing from then on.
IS_READ = "unread" not in sys.argv
C = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result:
        sys.exit(os.strerror(ctypes.get_errno()))


def attributes(node):
    mode, size = (0o40755, 0) if node == 1 else (0o100644, 4096)
    return struct.pack("<6Q10I", node, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(operation, node, body):
    """Returns the body of an answer (include/uapi/linux/fuse.h). Nothing is cached."""
    if operation == LOOKUP and body == b"file\0":
        return struct.pack("<4Q2I", 2, 0, 0, 0, 0, 0) + attributes(2)
    return {
        INIT: struct.pack("<4I2H2I2HI", 7, 19, 65536, 0, 12, 9, 65536, 1, 0, 0, 0) + bytes(28),
        GETATTR: struct.pack("<Q2I", 0, 0, 0) + attributes(node),
        OPEN: struct.pack("<Q2I", 1, 0, 0),
        READ: bytes(4096),
        STATFS: struct.pack("<5Q3I", 1, 1, 1, 1, 1, 4096, 255, 4096) + bytes(28),
    }.get(operation)


def serve(device):
    C.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    while True:
        request = os.read(device, 1 << 18)
        _, operation, unique, node = struct.unpack_from("<2I2Q", request)
        if operation in (FORGET, BATCH_FORGET):
            continue
        if operation == READ and not IS_READ:
            signal.pause()
        body = answer(operation, node, request[40:])
        error, body = (-38, b"") if body is None else (0, body)
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


check(C.unshare(CLONE_NEWNS))
check(C.mount(b"none", b"/", None, MS_PRIVATE | MS_REC, None))
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
check(C.mount(b"test", sys.argv[1].encode(), b"fuse.test", 0, options))
server = os.fork()
if server == 0:
    serve(device)
os.close(device)
file = os.open(sys.argv[1] + "/file", os.O_RDONLY)
mapped = mmap.mmap(file, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
if IS_READ:
    mapped[0]
    # To close the file would wait for the server.
    os.kill(server, signal.SIGSTOP)
    os.waitpid(server, os.WUNTRACED)
print("ready", flush=True)
sys.stdin.read()
os.kill(server, signal.SIGKILL)
