"""A process that has loaded `bentofs`, and forks for each request that comes through its socket (`fork_server`).

Each fork is a child of this process's parent, which gets its exit code. It has the arguments (in /proc, too), the
environment and the descriptors of its request. It runs `bentofs` and ends as any Python process does.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

LARGEST_REQUEST = 128 << 10  # bytes; less than a socket's buffer
COMMAND_LINE = "-" * 4096  # an argument of this process; a fork writes its own arguments there
_CLONE_CALLS = {"x86_64": 56, "aarch64": 220}  # numbers of clone(2)
_CLONE_PARENT, _CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID = 0x8000, 0x200000, 0x1000000  # linux/sched.h
_PR_SET_PDEATHSIG, _PR_GET_TID_ADDRESS = 1, 40  # linux/prctl.h
_CALLS = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock: a fork must own it


def serve(connection: socket.socket) -> None:
    """Fork for each request. Return in the fork. End when no process can ask any more."""
    commands = importlib.import_module("bentofs.mount.cli.main").COMMANDS
    for module in {module for module, _ in commands.values()}:
        importlib.import_module(f"bentofs.mount.cli.{module}")
    gc.collect()
    gc.freeze()  # a search for garbage would copy the memory that forks share
    while True:
        text, descriptors, _, _ = socket.recv_fds(connection, LARGEST_REQUEST, 3)
        if not text:
            sys.exit()
        pid = _fork_for_parent()
        if pid == 0:
            connection.close()
            _become(json.loads(text), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(str(pid).encode())


def _fork_for_parent() -> int:
    """Fork, as os.fork() does, but make the new process a child of this one's parent."""
    address = ctypes.c_void_p()
    if _CALLS.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: where the C library keeps the thread's number")
    flags = _CLONE_PARENT | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID | signal.SIGCHLD
    call = ctypes.c_long(_CLONE_CALLS[os.uname().machine])
    ctypes.pythonapi.PyOS_BeforeFork()
    # The address is the fourth or the fifth argument, by the machine; the other one is not looked at.
    pid: int = _CALLS.syscall(call, ctypes.c_long(flags), None, None, address, address)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return pid


def _become(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Turn this fork into the process of a request."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _CALLS.prctl(_PR_SET_PDEATHSIG, request["death_signal"], 0, 0, 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.orig_argv = [sys.executable, "-m", "bentofs.mount", *request["arguments"]]
    sys.argv = sys.orig_argv[2:]
    _show(sys.orig_argv)


def _show(arguments: Sequence[str]) -> None:
    """Write the arguments where /proc/PID/cmdline is read: over this process's own, which are long enough."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])  # arg_start and arg_end (proc_pid_stat(5))
    line = b"".join(os.fsencode(argument) + b"\0" for argument in arguments)[: end - begin - 1]
    ctypes.memmove(begin, line.ljust(end - begin, b"\0"), end - begin)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[-1])))
    from bentofs.mount.__main__ import main

    main()
