"""What the Linux kernel offers to confine a program: namespaces, a private root folder, a system call filter, limits.

Imported by the clean interpreter that runs programs (supervisor.py), never by the parent. Standard library only.
"""

import ctypes
import errno
import os
import resource
import struct

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x8000000, 1 << 28, 1 << 29, 1 << 30
CLONE_THREAD = 0x10000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MS_RELATIME, ST_RELATIME, KEPT_MOUNT_FLAGS = 1 << 21, 4096, 2 | 4 | 8 | 1024 | 2048
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 1, 4, 38, 22, 2
CAPABILITY_VERSION_3 = 0x20080522
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
LANDLOCK_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
WRITE_FILE, READ_FILE, READ_DIR = 2, 4, 8
PLACES = ("/tmp", "/mnt", "/media", "/srv", "/var/tmp", "/opt")
WORK = "/program"
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _EAGAIN, _EACCES, _ENOSYS = 1, 11, 13, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENT_AT = 0, 4, 16
_X32_BIT = 0x40000000
# Seccomp's name of the architecture, and the numbers of its system calls (asm/unistd.h).
_ARCHITECTURES = {
    "x86_64": (
        0xC000003E,
        {
            "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "socket": 41, "kill": 62, "tkill": 200,
            "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "ptrace": 101, "process_vm_readv": 310,
            "process_vm_writev": 311, "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155,
            "chroot": 161, "memfd_create": 319, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "bpf": 321,
            "perf_event_open": 298, "userfaultfd": 323, "keyctl": 250, "add_key": 248, "request_key": 249, "prctl": 157,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "clone": 220, "execve": 221, "execveat": 281, "socket": 198, "kill": 129, "tkill": 130, "tgkill": 131,
            "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "ptrace": 117, "process_vm_readv": 270,
            "process_vm_writev": 271, "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41,
            "chroot": 51, "memfd_create": 279, "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180, "bpf": 280,
            "perf_event_open": 241, "userfaultfd": 282, "keyctl": 219, "add_key": 217, "request_key": 218, "prctl": 167,
        },
    ),
}  # fmt: skip
# From 424 on the numbers are those of every architecture.
_COMMON = {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "clone3": 435, "memfd_secret": 447}
_ON_ITSELF = ("kill", "tgkill")


def call(name: str, *arguments: object) -> int:
    """A function of the C library; raises OSError where it returns -1."""
    # Variadic functions read whole registers.
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = getattr(ctypes.CDLL(None, use_errno=True), name)(*wide)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def die_with_parent() -> None:
    """SIGKILL for this process when its parent dies."""
    call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)


def hide_memory() -> None:
    """No other process of this user may trace this one or read its memory."""
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)


def enter_namespaces() -> None:
    """Own process, network, mount and IPC namespaces (for the children: pid); without root a user namespace as well.

    Raises OSError where the system does not allow it; then nothing has changed.
    """
    wanted = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        call("unshare", wanted)
        return
    call("unshare", wanted | CLONE_NEWUSER)
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w") as opened:
            opened.write(text)


def private_root(readable: list[str], size: int, files: int) -> str:
    """A root of this process's own: `readable` folders, read-only, and one empty folder of `size` bytes, returned.

    All else of the file system is out of reach. Needs a mount namespace of one's own; raises OSError.
    """
    call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    root = next(place for place in PLACES if os.path.isdir(place) and not any(_within(p, place) for p in readable))
    os.umask(0o022)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},nr_inodes={files},mode=755")
    os.chdir(root)
    for path in readable:
        os.makedirs(root + path, exist_ok=True)
        _mount(path, root + path, "", MS_BIND | MS_REC)
        flags = os.statvfs(root + path).f_flag
        kept = flags & KEPT_MOUNT_FLAGS | (MS_RELATIME if flags & ST_RELATIME else 0)
        _mount("", root + path, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | kept)
    for path in DEVICES:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.close(os.open(root + path, os.O_CREAT))
        _mount(path, root + path, "", MS_BIND)
    os.mkdir(root + WORK)
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir(WORK)
    return WORK


def _within(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    call("mount", source.encode(), target.encode(), kind.encode(), flags, data.encode())


def has_file_rules() -> bool:
    """Whether allow_files_only can work here."""
    try:
        return call("syscall", LANDLOCK_CREATE, None, 0, 1) > 0
    except OSError:
        return False


def allow_files_only(readable: list[str], folder: str) -> None:
    """From now on files can be read below `readable`, used freely in `folder`, and not touched elsewhere (Landlock).

    Comes after drop_capabilities; only where has_file_rules().
    """
    everything = (1 << LANDLOCK_RIGHTS[min(call("syscall", LANDLOCK_CREATE, None, 0, 1), 5)]) - 1
    rules = call("syscall", LANDLOCK_CREATE, struct.pack("=Q", everything), 8, 0)
    allowed = [(path, READ_FILE | READ_DIR) for path in readable]
    allowed += [(path, READ_FILE | WRITE_FILE) for path in DEVICES]
    for path, rights in [*allowed, (folder, everything)]:
        place = os.open(path, os.O_PATH)
        call("syscall", LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)
    call("syscall", LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def become_user(uid: int, folder: str, threads: int) -> None:
    """Root becomes that user, to whom `folder` is given and who has at most so many threads. Needs root."""
    os.chown(folder, uid, uid)
    resource.setrlimit(resource.RLIMIT_NPROC, (threads, threads))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def drop_capabilities() -> None:
    """Gives up what root or a user namespace allows, and the way back by set-user-ID programs."""
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())


def filter_system_calls() -> None:
    """No further process, no other program, no socket, no signal to another process, for good.

    Comes after drop_capabilities; only where has_filter().
    """
    architecture, numbers = _ARCHITECTURES[os.uname().machine]
    program = b"".join(struct.pack("<HBBI", *step) for step in _filter(architecture, numbers, os.getpid()))

    class FilterProgram(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    filled = FilterProgram(len(program) // 8, program)
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filled), 0, 0)


def _filter(architecture: int, numbers: dict[str, int], pid: int) -> list[tuple[int, int, int, int]]:
    """Instructions of the classic BPF: (code, jump if true, jump if false, value)."""
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]
    for name, number in {**numbers, **_COMMON}.items():
        rule = _rule(name, pid)
        steps += [(_EQUAL, 0, len(rule), number), *rule]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _rule(name: str, pid: int) -> list[tuple[int, int, int, int]]:
    first = (_LOAD, 0, 0, _ARGUMENT_AT)
    allow, refuse = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | _EPERM)
    if name == "clone":
        return [first, (_ANY_BIT, 0, 1, CLONE_THREAD), allow, (_RETURN, 0, 0, _ERRNO | _EAGAIN)]
    if name == "prctl":
        return [first, (_EQUAL, 1, 0, PR_SET_PDEATHSIG), allow, refuse]
    if name in _ON_ITSELF:
        return [first, (_EQUAL, 0, 1, pid), allow, refuse]
    error = {"fork": _EAGAIN, "vfork": _EAGAIN, "clone3": _ENOSYS, "socket": _EACCES}.get(name, _EPERM)
    return [(_RETURN, 0, 0, _ERRNO | error)]


def has_filter() -> bool:
    """Whether filter_system_calls can work here."""
    try:
        call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, None, 0, 0)
    except OSError as error:
        # A kernel that knows filters looks for one at this address.
        return error.errno == errno.EFAULT and os.uname().machine in _ARCHITECTURES
    return False


def can_become(uid: int) -> bool:
    """Whether root can become that user here: in a user namespace few users are known."""
    with open("/proc/self/uid_map") as ranges:
        firsts = [[int(number) for number in line.split()] for line in ranges]
    return os.geteuid() == 0 and any(first <= uid < first + count for first, _, count in firsts)


def is_readable_by_all(path: str) -> bool:
    """Whether every folder on the way to `path` may be entered by any user."""
    parts = path.split("/")
    return all(os.stat("/".join(parts[:n]) or "/").st_mode & 0o001 for n in range(1, len(parts) + 1))


def set_limit(kind: int, most: int) -> None:
    """Sets a resource limit, lower where a lower hard limit is inherited."""
    inherited = resource.getrlimit(kind)[1]
    most = most if inherited == resource.RLIM_INFINITY else min(most, inherited)
    resource.setrlimit(kind, (most, most))
