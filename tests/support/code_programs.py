"""Programs for the tests of the sandbox: honest ones, and ones that try to cheat or to do harm."""

RETURN = "def f(x): return x + 1\n"

# All are called as f(1) and should give 2; none may pass. The value: a word of the detail, "" where any will do.
HOSTILE = {
    "sys_exit": ("import sys\ndef f(x): sys.exit(0)", "SystemExit"),
    "os_exit": ("import os\ndef f(x): os._exit(0)", "exit with code 0"),
    "os_exit_while_loading": ("import os\nos._exit(0)", "exit with code 0"),
    "equals_everything": ("class E:\n    def __eq__(self, o): return True\ndef f(x): return E()", "another value"),
    "int_that_equals_everything": (
        "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return E(7)",
        "another value",
    ),
    "kills_its_parent": ("import os\ndef f(x):\n    os.kill(os.getppid(), 9)\n    return x + 1", "PermissionError"),
    "kills_all": ("import os\ndef f(x):\n    os.kill(-1, 9)\n    return x + 1", "PermissionError"),
    "kills_itself": ("import os\ndef f(x): os.kill(os.getpid(), 9)", "signal 9"),
    "floods_stdout": ("def f(x):\n    while True: print('x' * 100000, flush=True)", "CPU time"),
    "returns_too_much": ("def f(x): return 'x' * (8 << 20)", "too much output"),
    "forks_without_end": ("import os\ndef f(x):\n    while True: os.fork()", "BlockingIOError"),
    "threads_without_end": (
        "import threading, time\ndef f(x):\n    while True: threading.Thread(target=time.sleep, args=(99,)).start()",
        "thread",
    ),
    "starts_a_program": ("import subprocess\ndef f(x): return subprocess.run(['true']).returncode + 2", "Error"),
    "fills_the_disk": (
        "def f(x):\n    with open('a', 'wb') as a:\n        while True: a.write(bytes(1 << 16))",
        "Error",
    ),
    "fills_the_disk_with_small_files": (
        "def f(x):\n    for i in range(10 ** 9): open(f'a{i}', 'w').write('y' * 4000)\n    return x + 1",
        "",
    ),
    "eats_memory": ("def f(x):\n    a = []\n    while True: a.append(bytes(1 << 20))", "MemoryError"),
    "reads_outside": ("def f(x):\n    open('/etc/passwd').read()\n    return x + 1", "Error"),
    "lists_outside": ("import os\ndef f(x):\n    os.listdir('/home')\n    return x + 1", "Error"),
    "writes_outside": ("def f(x):\n    open('/tmp/rlvr_limit_was_here', 'w').write('x')\n    return x + 1", "Error"),
    "writes_to_the_library": ("import os\ndef f(x):\n    os.open(os.__file__, os.O_RDWR)\n    return x + 1", "Error"),
    "connects": ("import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', 9))", "Error"),
    "sleeps": ("import time\ndef f(x): time.sleep(1000)", "waits"),
    "stops_itself": ("import os\ndef f(x): os.kill(os.getpid(), 19)", "waits"),
    "loops": ("def f(x):\n    while True: pass", "CPU time"),
    "loops_and_ignores_the_limit": (
        "import signal\nsignal.signal(signal.SIGXCPU, lambda *a: None)\ndef f(x):\n    while True: pass",
        "CPU time",
    ),
    "fakes_results": (
        "import os\ndef f(x):\n    for d in range(3, 64):\n        try: os.write(d, b'0 0.0000 v 3\\n')\n"
        "        except OSError: pass\n    return x + 1",
        "another value",
    ),
    "fakes_frames": (
        "import os\ndef f(x):\n    for d in range(64):\n"
        "        try: os.write(d, b'e\\0\\0\\0\\x0c0\\t0\\t0\\t0\\t\\t')\n"
        "        except OSError: pass\n    return 3",
        "not the sandbox's",
    ),
    "closes_everything": ("import os\ndef f(x):\n    os.closerange(0, 100)\n    return x + 1", "exit with code"),
    "nests_without_end": ("def f(x):\n    a = []\n    a.append(a)\n    return a", "RecursionError"),
    "crashes": ("import ctypes\ndef f(x): ctypes.string_at(0)", "signal"),
    "does_not_parse": ("def f(x:", "SyntaxError"),
    "has_no_function": ("g = 1", "AttributeError"),
    "traces_its_parent": (
        "import ctypes, os\ndef f(x): return ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) + 100",
        "another value",
    ),
}
