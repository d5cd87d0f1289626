"""Cases for the NBD server, driven by libnbd with its own strictness off. Argument: the socket.

The volume has 64 MiB; of them 64 KiB at 1 MiB and the last block are dirty.
"""

import errno
import os
import socket
import struct
import sys

import nbd

PATH = sys.argv[1]
SIZE = 64 << 20
MIB = 1 << 20
STRUCTURED = True  # what the cases ask for that do not care


def connect(export="disk", strict=False, structured=None, contexts=()):
    h = nbd.NBD()
    h.set_request_structured_replies(STRUCTURED if structured is None else structured)
    for c in contexts:
        h.add_meta_context(c)
    if not strict:
        h.set_strict_mode(0)
    h.set_export_name(export)
    h.connect_unix(PATH)
    return h


def fails(number, f, *args, **kw):
    try:
        f(*args, **kw)
    except nbd.Error as e:
        assert e.errnum == number, f"{e} instead of {errno.errorcode[number]}"
        return str(e)
    raise AssertionError(f"no {errno.errorcode[number]} from {f} {args}")


def alive(h):
    """The stream is in step: the next request is answered right."""
    h.pwrite(b"\x5a" * 4096, 8 * MIB)
    assert h.pread(4096, 8 * MIB) == b"\x5a" * 4096


def unaligned():
    h = connect()
    h.pwrite(b"\x11" * 16384, 0)
    for off, n in ((1, 1), (4095, 2), (0, 4095), (4096, 1), (100, 8192), (8191, 4098), (12287, 1)):
        h.pwrite(b"\x11" * 16384, 0)
        h.pwrite(b"\x22" * n, off)
        want = b"\x11" * off + b"\x22" * n + b"\x11" * (16384 - off - n)
        assert h.pread(16384, 0) == want, (off, n)
        assert h.pread(n, off) == b"\x22" * n
        h.zero(n, off)
        want = b"\x11" * off + b"\x00" * n + b"\x11" * (16384 - off - n)
        assert h.pread(16384, 0) == want, ("zero", off, n)
        h.trim(n, off)
    h.shutdown()


def end_of_disk():
    h = connect()
    h.pwrite(b"\x33" * 4096, SIZE - 4096)
    assert h.pread(1, SIZE - 1) == b"\x33"
    fails(errno.EINVAL, h.pread, 2, SIZE - 1)
    fails(errno.EINVAL, h.pread, 4096, SIZE)
    fails(errno.EINVAL, h.pread, 4096, 1 << 62)
    fails(errno.ENOSPC, h.pwrite, b"\x00" * 8192, SIZE - 4096)
    fails(errno.ENOSPC, h.pwrite, b"\x00" * 512, SIZE)
    fails(errno.ENOSPC, h.zero, 8192, SIZE - 4096)
    fails(errno.EINVAL, h.trim, 8192, SIZE - 4096)
    fails(errno.EINVAL, h.cache, 8192, SIZE - 4096)
    alive(h)
    h.shutdown()


def large():
    h = connect()
    data = os.urandom(32 * MIB)
    h.pwrite(data, 4096)
    assert h.pread(32 * MIB, 4096) == data
    h.pwrite(data, 5000)  # ragged: its cover is larger than the budget
    assert h.pread(32 * MIB, 5000) == data
    fails(errno.EINVAL, h.pwrite, data + b"x", 0)
    fails(errno.EINVAL, h.pread, 32 * MIB + 1, 0)
    alive(h)
    h.zero(SIZE, 0)
    assert h.pread(4096, SIZE - 4096) == bytes(4096)
    h.shutdown()


def flags():
    h = connect()
    h.pwrite(b"\x44" * 4096, 0, nbd.CMD_FLAG_FUA)
    h.zero(4096, 4096, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
    h.trim(4096, 4096, nbd.CMD_FLAG_FUA)
    assert h.pread(4096, 0, nbd.CMD_FLAG_FUA) == b"\x44" * 4096  # legal on every command once offered
    assert connect(structured=True).pread(4096, 0, nbd.CMD_FLAG_DF) == b"\x44" * 4096
    fails(errno.EINVAL, connect(structured=False).pread, 4096, 0, nbd.CMD_FLAG_DF)
    fails(errno.EINVAL, h.pwrite, b"\x00" * 4096, 0, nbd.CMD_FLAG_NO_HOLE)
    fails(errno.ENOTSUP, h.zero, 4096, 0, nbd.CMD_FLAG_FAST_ZERO)
    fails(errno.EINVAL, h.pwrite, b"\x00" * 4096, 0, 1 << 9)
    h.cache(4096, 0)
    alive(h)
    h.shutdown()


def chunks():
    """A structured read is one chunk, with and without DF; the offset is the one that was asked for."""
    h = connect(structured=True)
    assert h.get_structured_replies_negotiated() and h.can_df()
    assert not connect(structured=False).can_df()
    data = os.urandom(2 * MIB)
    h.pwrite(data, MIB)
    for off, n in ((MIB, 4096), (MIB, 2 * MIB), (MIB + 4095, 2), (MIB + 100, MIB)):
        for flag in (0, nbd.CMD_FLAG_DF):
            got = []
            buf = h.pread_structured(n, off, lambda p, at, status, error: got.append((bytes(p), at, status)), flag)
            want = data[off - MIB:off - MIB + n]
            assert buf == want and got == [(want, off, nbd.READ_DATA)], (off, n, flag, len(got))
    fails(errno.EINVAL, h.pread_structured, 2, SIZE - 1, lambda *_: 0)
    alive(h)
    h.shutdown()


def contexts():
    """What libnbd makes of both contexts, whole, in part, and one extent at a time."""
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.set_export_name("disk")
    h.connect_unix(PATH)
    names = []
    h.opt_list_meta_context(lambda name: names.append(name))
    assert names == ["base:allocation", "x-duet:dirty"], names
    h.opt_abort()

    h = connect(structured=True, contexts=("base:allocation", "x-duet:dirty", "x-duet:what"))
    assert [h.can_meta_context(c) for c in ("base:allocation", "x-duet:dirty", "x-duet:what")] == [True, True, False]

    def status(n, off, flags=0):
        got = {}
        h.block_status(n, off, lambda context, at, entries, error: got.update({context: (at, entries)}), flags)
        return got

    want = [MIB, 0, 65536, 1, SIZE - MIB - 65536 - 4096, 0, 4096, 1]
    assert status(SIZE, 0) == {"base:allocation": (0, [SIZE, 0]), "x-duet:dirty": (0, want)}, status(SIZE, 0)
    assert status(8192, MIB)["x-duet:dirty"] == (MIB, [8192, 1])
    assert status(2, MIB - 1)["x-duet:dirty"] == (MIB - 1, [1, 0, 1, 1])
    assert status(SIZE, 0, nbd.CMD_FLAG_REQ_ONE)["x-duet:dirty"] == (0, [MIB, 0])
    fails(errno.EINVAL, status, 8192, SIZE - 4096)
    fails(errno.EINVAL, status, 4096, 0, nbd.CMD_FLAG_DF)
    alive(h)
    h.shutdown()
    h = connect(structured=True)  # nothing selected
    fails(errno.EINVAL, status, 4096, 0)
    alive(h)
    h.shutdown()


class Raw:
    """A client that says what it wants."""

    def __init__(self, export=b"disk", go=True):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        self.s.connect(PATH)
        magic, opt, flags = struct.unpack(">8s8sH", self.take(18))
        assert (magic, opt, flags) == (b"NBDMAGIC", b"IHAVEOPT", 3)
        self.s.sendall(struct.pack(">I", 3))
        self.structured = go and STRUCTURED
        if self.structured:
            assert self.option(8) == [(1, b"")]
        if go:
            replies = self.option(7, struct.pack(">I", len(export)) + export + b"\0\0")
            assert [r[0] for r in replies] == [3, 1], replies

    def take(self, n):
        p = b""
        while len(p) < n:
            more = self.s.recv(n - len(p))
            if not more:
                raise EOFError
            p += more
        return p

    def option(self, opt, data=b"", magic=b"IHAVEOPT"):
        self.s.sendall(magic + struct.pack(">II", opt, len(data)) + data)
        replies = []
        while True:
            m, o, kind, n = struct.unpack(">QIII", self.take(20))
            assert m == 0x3E889045565A9 and o == opt
            replies.append((kind, self.take(n)))
            if kind == 1 or kind >> 31:
                return replies

    def request(self, command, off, n, flags=0, cookie=7, payload=b"", magic=0x25609513):
        self.s.sendall(struct.pack(">IHHQQI", magic, flags, command, cookie, off, n) + payload)

    def reply(self):
        """Error and cookie of a reply, of either form, to anything but a read."""
        head = self.take(16)
        if not self.structured or head[:4] == b"\x67\x44\x66\x98":
            magic, error, cookie = struct.unpack(">IIQ", head)
            assert magic == 0x67446698
            return error, cookie
        magic, flags, kind, cookie = struct.unpack(">IHHQ", head)
        data = self.take(struct.unpack(">I", self.take(4))[0])
        assert magic == 0x668E33EF and flags == 1, (magic, flags)
        if kind == 0:
            return 0, cookie
        assert kind == 0x8001, kind
        error, n = struct.unpack(">IH", data[:6])
        assert len(data) == 6 + n and n > 5, "no reason for people"
        return error, cookie

    def read(self):
        """Data of a read that succeeded."""
        if not self.structured:
            assert self.reply() == (0, 7)
            return self.take(1)
        magic, flags, kind, cookie, n, _ = struct.unpack(">IHHQIQ", self.take(28))
        assert (magic, flags, kind, cookie, n) == (0x668E33EF, 1, 1, 7, 9)
        return self.take(1)

    def closed(self):
        try:
            self.take(1)
        except (EOFError, ConnectionResetError, BrokenPipeError):
            return
        raise AssertionError("still open")


UNSUP, INVALID, UNKNOWN, TOO_BIG = 0x80000001, 0x80000003, 0x80000006, 0x80000009


def options():
    r = Raw(go=False)
    for opt, data, want in (
        (5, b"", UNSUP),  # STARTTLS
        (8, b"x", INVALID),  # STRUCTURED_REPLY with data
        (9, b"\0" * 8, INVALID),  # metadata contexts before structured replies
        (10, b"\0" * 8, INVALID),
        (4, b"", UNSUP),
        (11, b"", UNSUP),
        (77777, b"what", UNSUP),
        (3, b"x", INVALID),  # LIST with data
        (7, b"", INVALID),
        (7, struct.pack(">I", 99) + b"disk\0\0", INVALID),
        (7, struct.pack(">I", 0xFFFFFFFF) + b"disk\0\0", INVALID),
        (7, struct.pack(">I", 4) + b"disk\0\2\0\3", INVALID),
        (7, struct.pack(">I", 4) + b"nope\0\0", UNKNOWN),
        (6, struct.pack(">I", 4) + b"nope\0\0", UNKNOWN),
        (7, b"\0" * 100000, TOO_BIG),
        (3, b"\0" * 10000, TOO_BIG),
    ):
        replies = r.option(opt, data)
        assert replies[-1][0] == want and len(replies) == 1, (opt, data[:20], replies)
        if want in (UNKNOWN, UNSUP):
            assert len(replies[0][1]) > 5, "no text for people"
    names = r.option(3)
    assert [k for k, _ in names] == [2, 2, 1] and names[0][1] == b"\0\0\0\4diskthe test disk", names
    info = r.option(6, struct.pack(">I", 4) + b"disk" + struct.pack(">HHHHH", 4, 3, 1, 2, 99))
    assert [k for k, _ in info] == [3, 3, 3, 3, 1], info
    assert (3, struct.pack(">HIII", 3, 4096, 4096, MIB)) in info
    assert r.option(2)[-1][0] == 1  # ABORT
    r.closed()

    r = Raw(go=False)  # EXPORT_NAME, and then requests
    r.s.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 5) + b"other")
    size, flags = struct.unpack(">QH", r.take(10))
    assert size == MIB and flags & 1
    r.request(3, 0, 0)
    assert r.reply() == (0, 7)
    r = Raw(go=False)
    r.s.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 4) + b"nope")
    r.closed()
    r = Raw(go=False)
    r.s.sendall(b"IHAVENOT" + struct.pack(">II", 3, 0))
    r.closed()
    r = Raw(go=False)  # an endless option
    r.s.sendall(b"IHAVEOPT" + struct.pack(">II", 3, 0xFFFFFFFF))
    r.closed()
    r = Raw(go=False)  # endless options
    for _ in range(128):
        r.option(3)
    r.closed()


def commands():
    r = Raw()
    for i, command in enumerate((7, 8, 9, 99, 0xFFFF)):
        r.request(command, 0, 4096, cookie=i)
        assert r.reply() == (errno.EINVAL, i)
    r.request(3, 4096, 0)  # FLUSH with a range
    assert r.reply()[0] == errno.EINVAL
    r.request(0, (1 << 64) - 1, 0xFFFFFFFF)
    assert r.reply()[0] == errno.EINVAL
    r.request(6, 1 << 63, 0xFFFFFFFF)
    assert r.reply()[0] == errno.ENOSPC
    r.request(0, 0, 0)
    assert r.reply()[0] == 0
    r.request(1, 0, 0)
    assert r.reply()[0] == 0
    r.request(1, SIZE, 4096, payload=b"\1" * 4096)  # refused, and drained
    assert r.reply()[0] == errno.ENOSPC
    r.request(1, 0, 4096, flags=4, payload=b"\1" * 4096)
    assert r.reply()[0] == errno.EINVAL
    r.request(1, 0, 4096, payload=b"\7" * 4096)
    assert r.reply()[0] == 0
    r.request(0, 0, 1)
    assert r.read() == b"\7"
    r.request(2, 0, 0)  # DISC: no reply, closed
    r.closed()
    r = Raw()
    r.request(0, 0, 1, magic=0x25609514)
    r.closed()
    r = Raw()
    r.request(1, 0, 0xFFFFFFFF)  # nobody drains 4 GiB
    r.closed()


def abort_mid_payload():
    h = connect()
    h.pwrite(b"\x66" * 65536, MIB)
    r = Raw()
    r.request(1, MIB, 65536, payload=b"\x99" * 40000)
    r.s.close()
    r = Raw()
    r.s.sendall(b"\x25\x60\x95\x13\x00")
    r.s.close()
    r = Raw(go=False)  # in the middle of an option
    r.s.sendall(b"IHAVEOPT" + struct.pack(">II", 7, 100) + b"\0" * 50)
    r.s.close()
    r = Raw()  # in the middle of many reads
    for i in range(100):
        r.request(0, 0, MIB)
    r.take(100)
    r.s.close()
    assert h.pread(65536, MIB) == b"\x66" * 65536, "half a write was carried out"
    h.shutdown()


def pipelined_disc():
    """Requests before DISC are answered, in whatever order."""
    r = Raw()
    for i in range(50):
        r.request(1, i * 4096, 4096, cookie=i, payload=bytes([i]) * 4096)
    r.request(2, 0, 0)
    assert sorted(r.reply() for _ in range(50)) == [(0, i) for i in range(50)]
    r.closed()


def flush_over_connections():
    a, b = connect(), connect()
    assert a.can_multi_conn()
    a.pwrite(b"\x77" * 4096, 3 * MIB)
    b.flush()
    assert b.pread(4096, 3 * MIB) == b"\x77" * 4096
    a.shutdown()
    b.shutdown()


def strict_client():
    """A client that keeps to what was advertised has no reason to complain."""
    h = connect(strict=True)
    assert h.get_block_size(nbd.SIZE_MINIMUM) == 4096
    assert h.get_block_size(nbd.SIZE_MAXIMUM) == MIB
    h.pwrite(b"\x10" * MIB, 0)
    assert h.pread(MIB, 0) == b"\x10" * MIB
    h.shutdown()


for STRUCTURED in (True, False):
    for case in (unaligned, end_of_disk, large, flags, chunks, contexts, options, commands, abort_mid_payload,
                 pipelined_disc, flush_over_connections, strict_client):
        case()
        print("ok", case.__name__, "structured" if STRUCTURED else "simple")
print("all cases passed")
