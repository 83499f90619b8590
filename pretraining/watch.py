"""Ranks that watch each other, so that one that dies ends the run within seconds, by name, and not after the process group's 30 minutes.

A star of sockets with rank 0 in the middle. The kernel closes the connections of a process that died, at once, and TCP keepalive tells of
a machine that is gone, within half a minute. There are no heartbeats: a process that is slow, stopped or holds its interpreter's lock is
not dead. A thread waits on the connections, so the main thread may be stuck in a collective; when a rank is lost that thread ends the
process. A rank alone on a live machine that its network cut off looks like a machine that is gone, to both sides.

Connections are made with plain sockets, not with `multiprocessing.connection.Client`, which knows neither time limits (a firewall that
drops packets would hold the start for minutes) nor IPv6. What arrives is JSON: nothing from the network is unpickled.
"""

import contextlib
import errno
import hmac
import ipaddress
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, Pipe, wait

from pretraining.console import say
from pretraining.control import Control

EXIT_RANK_FAILURE = 1
CONNECT_SECONDS = 10.0
ON_LOST_SECONDS = 20.0  # a file system that hangs must not keep the process
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
_TOKEN_BYTES, _RANK_BYTES, _REASON_CHARACTERS = 32, 4, 500
_UNREACHABLE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


@dataclass(frozen=True)
class _Member:
    host: str
    process: int


@dataclass(frozen=True)
class _Loss:
    """A rank and what became of it. It is also the message that says so."""

    rank: int
    what: str


_GOODBYE = b"{}"


class Watch:
    """Watches the other ranks from construction to `goodbye` or `failed`. All ranks construct it together; nothing to do for one rank.

    When a rank is lost, rank 0 prints one line and calls `on_lost` with its text; where rank 0 is the lost one, the lowest other rank of
    every host does (nobody can tell whether rank 1 lives). Then every survivor exits with `EXIT_RANK_FAILURE`, whatever its main thread
    is doing.
    """

    def __init__(self, control: Control, on_lost: Callable[[str], None]) -> None:
        self._rank, self._on_lost = control.rank, on_lost
        self._members: list[_Member] = []
        self._links: dict[Connection, int] = {}  # to the rank at the other end
        self._lock = threading.Lock()  # over links and what is sent through them, and over who comes first: leaving or a loss
        self._leaving, self._found = threading.Event(), threading.Event()
        self._text: str | None = None
        self._thread: threading.Thread | None = None
        if control.world_size == 1:
            return
        reason = self._connect(control)
        if reason is not None:
            self._close()
            if self._rank == 0:
                say(f"note: ranks cannot watch each other ({reason}); a dead rank is then noticed by the launcher or after 30 minutes")
            return
        # A forked child that outlives its rank would keep the connections open.
        os.register_at_fork(after_in_child=self._close)
        self._woken, self._wake = Pipe(duplex=False)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    @property
    def is_active(self) -> bool:
        """Whether the ranks are connected, so that what `failed` says is printed by one of them."""
        return self._thread is not None

    def goodbye(self) -> None:
        """An orderly end of this rank: that its connections close is no death."""
        self._leave(_GOODBYE)

    def failed(self, text: str) -> None:
        """This rank is about to end because of an error of its own, `text`; the others end too and name it.

        Where another rank was found lost before, this does not return: the error is then taken for a consequence.
        """
        reason = " ".join(text.split())[:_REASON_CHARACTERS]
        self._leave(json.dumps(asdict(_Loss(self._rank, f"failed: {reason}"))).encode())

    def verdict(self, seconds: float) -> str | None:
        """The text about a lost rank if one is found within so many seconds; this process is then about to be ended."""
        if self._thread is None or not self._found.wait(seconds):
            return None
        return self._text

    def _connect(self, control: Control) -> str | None:
        """Make the star. Returns why it cannot be had, the same on every rank."""
        server = port = error = None
        address = os.environ["MASTER_ADDR"]
        if self._rank == 0:
            try:
                server = _listen(address, control.world_size)
                port = server.getsockname()[1]
            except OSError as found:
                error = f"rank 0 cannot listen: {found}"
        told = control.gather((socket.gethostname(), os.getpid(), port, secrets.token_bytes(_TOKEN_BYTES), error))
        self._members = [_Member(host, process) for host, process, *_ in told]
        *_, port, token, error = told[0]
        if error is not None:
            return error
        try:
            if server is not None:
                self._accept(server, token, control.world_size - 1)
            else:
                self._dial(address, port, token)
        except OSError as found:
            error = f"rank {self._rank}: {found}"
        finally:
            if server is not None:
                server.close()
        errors = control.gather(error)
        # That rank 0 waited in vain follows from what another rank found.
        return next((error for error in [*errors[1:], errors[0]] if error is not None), None)

    def _accept(self, server: socket.socket, token: bytes, count: int) -> None:
        until = time.monotonic() + 1.5 * CONNECT_SECONDS
        while len(self._links) < count:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"only {len(self._links)} of {count} ranks connected")
            server.settimeout(left)
            connection, _ = server.accept()
            connection.settimeout(left)
            hello = b""
            with contextlib.suppress(OSError):
                hello = connection.recv(_TOKEN_BYTES + _RANK_BYTES)
            if hmac.compare_digest(hello[:_TOKEN_BYTES], token):
                self._links[_link(connection)] = int.from_bytes(hello[_TOKEN_BYTES:])
            else:
                connection.close()  # a stranger

    def _dial(self, address: str, port: int, token: bytes) -> None:
        connection = socket.create_connection((address, port), timeout=CONNECT_SECONDS)
        connection.sendall(token + self._rank.to_bytes(_RANK_BYTES))
        self._links[_link(connection)] = 0

    def _run(self) -> None:
        while self._links:
            for ready in wait([*self._links, self._woken]):
                if ready is self._woken:
                    return
                loss = self._read(ready)
                if loss is not None:
                    return self._end(loss)

    def _read(self, link: Connection) -> _Loss | None:
        """What a link that has something to say tells; None after a goodbye."""
        try:
            message = json.loads(link.recv_bytes())
        except EOFError:
            message = None
        except OSError as error:
            message = None
            if error.errno in _UNREACHABLE:
                return _Loss(self._links[link], "died: its machine does not answer any more")
        if message is None:
            return _Loss(self._links[link], "died: its process was killed (out of memory?) or crashed")
        if message:
            return _Loss(**message)
        with self._lock:
            del self._links[link]
            link.close()
        return None

    def _end(self, loss: _Loss) -> None:
        """Pass the loss on, tell people, end this process; unless its main thread was leaving before."""
        with self._lock:
            if self._leaving.is_set():
                return
            member = self._members[loss.rank]
            self._text = f"rank {loss.rank} (host {member.host}, process {member.process}) {loss.what}"
            self._found.set()
            if self._rank == 0:
                self._send(json.dumps(asdict(loss)).encode())
        try:
            if self._speaks(loss.rank):
                cure = "; the run goes on from its newest checkpoint with --resume" if loss.what.startswith("died") else ""
                print(f"error: {self._text}{cure}", file=sys.stderr, flush=True)
                work = threading.Thread(target=self._on_lost, args=(self._text,), daemon=True)
                work.start()
                work.join(ON_LOST_SECONDS)
            sys.stderr.flush()
        finally:
            os._exit(EXIT_RANK_FAILURE)

    def _speaks(self, lost: int) -> bool:
        if lost != 0:
            return self._rank == 0
        here = self._members[self._rank].host
        return self._rank == next(rank for rank, member in enumerate(self._members) if rank != 0 and member.host == here)

    def _leave(self, message: bytes) -> None:
        if self._thread is None:
            return
        with self._lock:
            self._leaving.set()
            self._send(message)
        self._wake.send_bytes(b"")
        # Where a loss came first, the thread does not return but ends the process.
        self._thread.join()
        self._close()

    def _send(self, message: bytes) -> None:
        for link in self._links:
            # Whoever is not there any more needs no message.
            with contextlib.suppress(OSError):
                link.send_bytes(message)

    def _close(self) -> None:
        for link in self._links:
            link.close()
        self._links = {}


def _listen(address: str, backlog: int) -> socket.socket:
    """A server on any free port: on loopback where the ranks meet there, else on all interfaces.

    A host name counts as an address from outside, because its own machine may know it as a loopback address.
    """
    try:
        loopback = address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    problem = OSError(f"{address} has no address")
    for family, *_, place in socket.getaddrinfo(address, None, type=socket.SOCK_STREAM):
        try:
            return socket.create_server((place[0] if loopback else "", 0), family=family, backlog=backlog)
        except OSError as error:
            problem = error
    raise problem


def _link(connection: socket.socket) -> Connection:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # macOS knows not all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Connection(connection.detach())
