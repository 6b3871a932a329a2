"""Connecting the processes of a run: soon, or with the reason on every machine."""

import contextlib
import datetime
import ipaddress
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from eca_zoo.errors import RunError, one_line

# They start within seconds of each other, but import what they need from a file system that may be slow.
_PATIENCE = datetime.timedelta(minutes=5)
# By then all are there; gloo waits five times as long for one that gives up.
_MESH = datetime.timedelta(minutes=1)
_INTERFACE = 'GLOO_SOCKET_IFNAME'
_FAILED = 'failed'


def connect(rank: int, size: int, timeout: datetime.timedelta) -> None:
    """Connect this process with the others that ``torchrun`` started, by gloo.

    Args:
        rank: number of this process.
        size: how many there are.
        timeout: how long one may wait for the others from then on.

    Raises:
        RunError: they cannot reach each other.
    """
    me = f'process {rank} on {socket.gethostname()}'
    try:
        store, _, _ = next(iter(dist.rendezvous('env://', rank, size, timeout=_PATIENCE)))
    except (RuntimeError, ValueError) as error:
        raise RunError(f'{me} does not find the others: {_reason(error)}; start with torchrun') from None
    own = dist.PrefixStore('eca_zoo', store)
    own.set_timeout(_PATIENCE)
    seats = _seats(own, rank, size, me)
    try:
        _check_addresses(seats)
    except RunError:
        _leave_together(own, rank, size)
        raise
    try:
        dist.init_process_group(
            'gloo', store=dist.PrefixStore('default_pg', store), rank=rank, world_size=size, timeout=_MESH
        )
    except (RuntimeError, ValueError) as error:
        reason = _reason(error)
        with contextlib.suppress(RuntimeError):
            # The others wait for a process that gives up, and learn why then.
            reason = own.get(_FAILED).decode() if own.check([_FAILED]) else reason
            own.set(_FAILED, reason)
        raise RunError(
            f'{me} cannot reach the others: {reason}; {_remedy()}, and let the machines talk to each other on all ports'
        ) from None
    _set_timeout(timeout)


@dataclass(frozen=True)
class _Seat:
    """Where a process is: its machine, the address that gloo tells the others, and its interfaces to choose from."""

    host: str
    address: str
    interfaces: Sequence[str]


def _seats(store: dist.Store, rank: int, size: int, me: str) -> list[_Seat]:
    """Where each process is, by number.

    Raises:
        RunError: one of them does not come.
    """
    interfaces = [name for _, name in socket.if_nameindex()] if hasattr(socket, 'if_nameindex') else []
    store.set(str(rank), json.dumps([socket.gethostname(), _own_address(), interfaces]))
    seats = []
    for other in range(size):
        try:
            seats.append(_Seat(*json.loads(store.get(str(other)))))
        except RuntimeError as error:
            raise RunError(f'{me} waits for process {other} in vain ({_reason(error)}); its own log says why') from None
    return seats


def _leave_together(store: dist.Store, rank: int, size: int) -> None:
    """Wait until all have read what the store holds, which may end with the process that ends first."""
    with contextlib.suppress(RuntimeError):
        store.set(f'left {rank}', '')
        store.wait([f'left {other}' for other in range(size)])


def _own_address() -> str:
    """The address by which gloo tells the others to reach this process; '' where the user chose an interface.

    It takes the address of the machine's own name, or the loopback where the name has none.
    """
    if os.environ.get(_INTERFACE):
        return ''
    with contextlib.suppress(OSError):
        for family, kind, protocol, _, address in socket.getaddrinfo(
            socket.gethostname(), None, type=socket.SOCK_STREAM
        ):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as trial:
                trial.bind(address)
                return str(address[0])
    return '127.0.0.1'


def _check_addresses(seats: Sequence[_Seat]) -> None:
    """Refuse machines that tell the others an address that stands for each of them."""
    if len({seat.host for seat in seats}) == 1:
        return
    for rank, seat in enumerate(seats):
        if seat.address and ipaddress.ip_address(seat.address.partition('%')[0]).is_loopback:
            raise RunError(
                f'process {rank} on {seat.host} cannot be reached from other machines: the name {seat.host} stands for '
                f'{seat.address} there; {_remedy(seat.interfaces)}'
            )


def _reason(error: Exception) -> str:
    """The first line of what torch says; the stack of its C++ code follows."""
    return one_line(error) if not str(error).strip() else str(error).strip().splitlines()[0].strip()


def _remedy(interfaces: Sequence[str] = ()) -> str:
    known = [name for name in interfaces if name != 'lo']
    there = f' (there: {", ".join(known)})' if known else ''
    return f'set {_INTERFACE} on each machine to the network interface between them{there}'


def _set_timeout(timeout: datetime.timedelta) -> None:
    from torch.distributed import distributed_c10d

    # torch before 2.14 has it under another name.
    change: Any = getattr(dist, 'set_timeout', None) or distributed_c10d._set_pg_timeout
    change(timeout)
