"""A room for one process, on Linux: it sees Python, its packages and one folder, and nothing else.

Namespaces of Linux, for which no rights are needed: of users, mounts, processes, messages and the
network. Where the system does not allow them, there is no room, and `enter` returns False.
"""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

CLONE = {"user": 1 << 28, "mount": 1 << 17, "process": 1 << 29, "message": 1 << 27, "net": 1 << 30}
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 32, 4096, 16384, 1 << 18
NO_SUID, NO_DEVICES = 2, 4
DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION = 0x20080522
DIE_WITH_PARENT, NO_NEW_PRIVILEGES = 1, 38  # of prctl
KILL = 9
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
SYSTEM = ("/usr", "/lib", "/lib64", "/etc/fonts", "/etc/ld.so.cache", "/etc/localtime")


def enter(folder: Path, hidden: Sequence[Path]) -> bool:
    """Shut this process into a room with `folder`; returns whether it is in one.

    The rest of the program then runs in a child process, the first of its own namespace; the
    process that called ends with its exit status.

    hidden  what must not be seen, if it should lie below Python or its packages
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in PIVOT_ROOT:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(sum(CLONE.values())):
        return False
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
    with contextlib.suppress(OSError):
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    libc.prctl(DIE_WITH_PARENT, KILL, 0, 0, 0)
    try:
        _furnish(libc, folder, hidden, PIVOT_ROOT[machine])
    except OSError:
        return False  # still without a network, and in a process namespace of its own
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    libc.syscall(CAPSET[machine], header, (ctypes.c_uint32 * 6)())  # give all rights up
    return True


def _furnish(libc, folder: Path, hidden: Sequence[Path], pivot_root: int) -> None:
    """Build the room out of mounts, and make it the root of the file system."""

    def mount(source: str, target: Path, kind: str | None, flags: int, data: str | None = None):
        arguments = [source.encode(), os.fsencode(target), kind and kind.encode(), flags]
        if libc.mount(*arguments, data and data.encode()):
            raise OSError(ctypes.get_errno(), f"mount {target}")

    def show(path: Path, read_only: bool) -> None:
        target = room / path.relative_to("/")
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        mount(str(path), target, None, BIND | RECURSIVE)
        if read_only:
            with contextlib.suppress(OSError):
                mount("none", target, None, REMOUNT | BIND | READ_ONLY | NO_SUID)

    mount("none", Path("/"), None, RECURSIVE | PRIVATE)
    room = folder / "room"
    room.mkdir()
    mount("tmpfs", room, "tmpfs", NO_SUID | NO_DEVICES, "size=16m")
    for path in _outermost([*map(Path, SYSTEM), *_python_folders()]):
        show(path, read_only=True)
    for device in DEVICES:
        with contextlib.suppress(OSError):
            show(Path(device), read_only=False)
    for path in hidden:
        inside = room / path.relative_to("/")
        if inside.is_dir():
            mount("tmpfs", inside, "tmpfs", READ_ONLY, "size=4k")
    (room / "proc").mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        mount("proc", room / "proc", "proc", NO_SUID | NO_DEVICES)
    show(folder, read_only=False)
    before = room / ".before"
    before.mkdir()
    if libc.syscall(pivot_root, os.fsencode(room), os.fsencode(before)):
        raise OSError(ctypes.get_errno(), "pivot_root")
    os.chdir("/")
    if libc.umount2(b"/.before", DETACH):
        raise OSError(ctypes.get_errno(), "umount")
    os.chdir(folder)


def _python_folders() -> list[Path]:
    """Where the interpreter and its packages lie."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix)]
    for entry in sys.path:
        if entry and "site-packages" in entry or "dist-packages" in entry:
            folders.append(Path(entry))
    return [path.resolve() for path in folders]


def _outermost(paths: Sequence[Path]) -> list[Path]:
    """The paths that exist, without those that lie in another one of them, or that are links."""
    existing = sorted({path.resolve() for path in paths if path.exists()} | {
        path for path in paths if path.is_symlink()
    })
    kept: list[Path] = []
    for path in existing:
        if path == Path("/"):
            continue
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept
