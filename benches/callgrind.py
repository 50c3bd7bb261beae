"""A server under valgrind's callgrind: the instructions that its busiest thread executes between two looks.

Counts, unlike times, hold on a machine that others use too. callgrind shows every program the same processor, whichever
is below (with AVX2 or without), and leaves it no vDSO, so the same binary takes the same path on another machine.
Python 3 standard library only; Linux.
"""
import ctypes
import glob
import os
import platform
import re
import struct
import subprocess

from measure import Server  # from redis-compat-tests/harness

PRCTL_NUMBERS = {"x86_64": 157, "aarch64": 167}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_GET_AUXV = 22, 38, 0x41555856
SECCOMP_MODE_FILTER, SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW, EINVAL = 2, 0x00050000, 0x7FFF0000, 22
BPF_LOAD_WORD, BPF_JUMP_IF_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
DUMP_SECONDS = 60


def is_supported():
    return platform.system() == "Linux" and platform.machine() in PRCTL_NUMBERS


def forbid_auxv():
    """Makes PR_GET_AUXV fail for this process and for all that it starts, as kernels before 6.4 do.

    Through it the crate rustix finds the kernel's vDSO, which valgrind has taken out of the process: the server would
    end with SIGSEGV (https://github.com/bytecodealliance/rustix/issues/1559). Without it, rustix reads
    /proc/self/auxv, where valgrind answers in the kernel's place.
    """
    program = [
        (BPF_LOAD_WORD, 0, 0, 0),  # the number of the system call
        (BPF_JUMP_IF_EQUAL, 0, 3, PRCTL_NUMBERS[platform.machine()]),
        (BPF_LOAD_WORD, 0, 0, 16),  # the lower half of its first argument
        (BPF_JUMP_IF_EQUAL, 0, 1, PR_GET_AUXV),
        (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | EINVAL),
        (BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    filtering = Program(len(program), ctypes.addressof(code))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filtering), 0, 0):
        raise OSError(ctypes.get_errno(), "no filter for system calls: " + os.strerror(ctypes.get_errno()))


class Counted:
    """A server with one worker whose instructions are counted. Close it, or use it in a `with`."""

    def __init__(self, binary, port=None):
        # Pipes and counts lie in the server's own directory, which is removed when it is closed.
        self.server = Server(
            "valgrind -q --tool=callgrind --separate-threads=yes --vgdb-prefix={dir}/vgdb --callgrind-out-file={dir}/counts "
            # Fewer cycles of expiry, which come by time: a slow machine would count more of them per request.
            + binary + " --port {port} --dir {dir} --threads 1 --hz 1 --save ''", port=port)

    def wait_ready(self):
        self.server.wait_ready(60)
        return self

    def taken(self):
        """Instructions of the busiest thread since the last look, and its functions' own shares {name: instructions}."""
        counts = os.path.join(self.server.directory, "counts")
        prefix = "--vgdb-prefix=" + os.path.join(self.server.directory, "vgdb")
        subprocess.run(["vgdb", prefix, "--pid=%d" % self.server.pid, "dump"], check=True, timeout=DUMP_SECONDS,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = []
        for path in glob.glob(counts + ".*"):
            with open(path, errors="replace") as file:
                found.append(own_shares(file))
            os.unlink(path)
        if not found:
            raise RuntimeError("callgrind has written no counts:\n" + self.server.log_tail())
        busiest = max(found, key=lambda shares: sum(shares.values()))
        return sum(busiest.values()), busiest

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.close()


def own_shares(lines):
    """{function: instructions of its own} of one file of callgrind; calls are left out, they are in the functions called.

    The format: https://valgrind.org/docs/manual/cl-format.html. A name stands where its number is met first.
    """
    names, shares, current, is_call = {}, {}, None, False
    for line in lines:
        if line.startswith("fn="):
            number, name = re.match(r"fn=\((\d+)\)(?: (.*))?", line).groups()
            current = names.setdefault(number, name)
        elif line.startswith("cfn="):
            number, name = re.match(r"cfn=\((\d+)\)(?: (.*))?", line).groups()
            names.setdefault(number, name)
        elif line.startswith("calls="):
            is_call = True
        elif line[:1] in "0123456789+-*" and current is not None:
            if not is_call:
                shares[current] = shares.get(current, 0) + int(line.split()[-1])
            is_call = False
    return shares
