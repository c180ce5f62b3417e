"""Graders for the tests of the pool: one that does what a response says, and some that fail."""

import multiprocessing
import os
import signal
import sys
import time

from rlvr_limit.types import Problem, Status, Verdict


def problem(name="p", answer="5"):
    return Problem(name, "", "", (), answer)


def play(given, text):
    """A grader that does what the response says."""
    match text.partition(" ")[0]:
        case "hang":
            while True:
                pass
        case "sleep":
            time.sleep(float(text.split()[1]))
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "raise":
            raise ValueError("no such luck")
        case "eat":
            return Verdict(bytearray(8 << 30) is None, Status.GRADED)
        case "modules":
            return Verdict("jax" in sys.modules, Status.GRADED, detail=multiprocessing.get_start_method())
        case "count" | "count_and_hang" | "report":
            with open(text.split()[1], "a") as file:
                file.write("x" if text[0] == "c" else f"{os.getpid()}\n")
            while text.startswith("count_and_hang"):
                pass
            time.sleep(1.0 if text[0] == "r" else 0.0)
        case "nothing":
            return "no verdict"
    return Verdict(text == given.answer, Status.GRADED, text)


def broken(given, text):
    raise KeyError("lost")


def end_the_server(given, text):
    os._exit(1)
