"""One request to a server that speaks OpenAI's API, sent again where that may help. The key is in its header alone."""

from __future__ import annotations

import email.utils
import http.client
import itertools
import json
import os
import random
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from rlvr_limit.settings import Endpoint
from rlvr_limit.types import UserError

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before a request is sent for the second time, and at most; twice as many from time to time."""

PASSING = (408, 409, 425, 429)
"""Codes beside those from 500 on that may be others at the next try."""

NO_SERVER = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _PassingFault(Exception):
    """What may be gone at the next try; the server wants `seconds` to pass before it."""

    def __init__(self, what: str, seconds: float = 0.0):
        super().__init__(what)
        self.seconds = seconds


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Another server must not be shown the key."""

    def redirect_request(self, *_: Any) -> None:
        return None


class EndpointClient:
    """Asks one endpoint, from any number of threads. Raises UserError, one line, where asking again is of no use."""

    def __init__(self, endpoint: Endpoint):
        self._endpoint, self._url = endpoint, endpoint.url.rstrip("/")
        self._key = os.environ.get(endpoint.key, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UserError(f"{endpoint.key}: this environment variable holds no key that a header can carry")
        # A proxy of the environment does not know this machine's own servers.
        proxies = [urllib.request.ProxyHandler({})] if urlsplit(self._url).hostname in LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirects, *proxies)
        self._has_answered = False
        self.is_over = threading.Event()
        self.sent_again = 0

    def ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """The reply, which has choices."""
        for turn in itertools.count():
            try:
                reply = self._ask_once(route, body | {"model": self._endpoint.model})
                self._has_answered = True
                return reply
            except _PassingFault as fault:
                if turn == self._endpoint.retries:
                    raise self._error(f"{fault}, {turn + 1} times in a row; run the same command to go on") from None
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2**turn) * random.uniform(0.5, 1.0)
                if self.is_over.wait(fault.seconds + wait if fault.seconds else wait):
                    raise self._error(f"{fault}, and not asked again, as the run ends") from None
                self.sent_again += 1

    def _ask_once(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(self._url + route, json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=self._endpoint.seconds) as answer:
                reply = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, NO_SERVER) and not self._has_answered:
                raise self._error(f"no connection ({error.reason})") from None
            raise _PassingFault(f"no connection ({error.reason})") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _PassingFault(f"its reply was cut ({type(error).__name__})") from None
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not (isinstance(choices, list) and choices and all(isinstance(choice, dict) for choice in choices)):
            raise _PassingFault(f"a reply without choices: {json.dumps(reply)[:120]}")
        return reply

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """What a reply of a code that is no success means."""
        key = self._endpoint.key
        if error.code in (401, 403):
            # The server's own words may hold a part of the key.
            wrong = f"refused the key in {key}" if self._key else f"wants a key: set the environment variable {key}"
            return self._error(f"{wrong} ({error.code})")
        try:
            said = error.read(4096).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            said = ""
        try:
            said = json.loads(said)
            said = said.get("error", said)
            said = said.get("message", said) if isinstance(said, dict) else said
        except (ValueError, AttributeError):
            pass  # no JSON, or no object: shown as it is
        what = f"{error.code} {said or error.reason}"
        if error.code >= 500 or error.code in PASSING:
            return _PassingFault(what, _seconds(error.headers.get("Retry-After", "")))
        return self._error(f"model {self._endpoint.model!r}: {what}")

    def _error(self, what: str) -> UserError:
        """One line, without the key, whoever wrote it there."""
        line = " ".join(f"endpoint {self._url}: {what}".split())
        return UserError((line.replace(self._key, "***") if self._key else line)[:400])


def _seconds(retry_after: str) -> float:
    """The header's seconds, or those until its date; 0 where it says nothing."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    date = email.utils.parsedate_tz(retry_after)
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else 0.0
