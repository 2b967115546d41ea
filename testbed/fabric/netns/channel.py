"""How a runner and a keeper talk: framed JSON with a binary payload and descriptors, over a Unix stream socket.

Frame: two network-order u32 (length of the JSON, length of the payload), the JSON, the payload. Descriptors
ride on the first byte. Standard library only.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

_HEAD = struct.Struct("!II")
_MAX_FDS = 64
_MAX_FRAME = 1 << 28

Message = dict[str, Any]


class ChannelClosedError(ConnectionError):
    """The other end is gone."""


def send(sock: socket.socket, message: Message, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
    """Send one frame. Raises ChannelClosedError."""
    text = json.dumps(message, separators=(",", ":")).encode()
    head = _HEAD.pack(len(text), len(payload))
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        data = memoryview(head + text)
        sent = sock.sendmsg([data], ancillary)
        sock.sendall(data[sent:])
        if payload:
            sock.sendall(payload)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ChannelClosedError("the other end of the channel is gone") from error


def receive(sock: socket.socket) -> tuple[Message, bytes, list[int]]:
    """Receive one frame: message, payload, descriptors (close-on-exec, now ours to close).

    Raises ChannelClosedError at the end of the stream, ValueError on a malformed frame.
    """
    fds: list[int] = []
    try:
        head = _receive_head(sock, fds)
        text_length, payload_length = _HEAD.unpack(head)
        if text_length > _MAX_FRAME or payload_length > _MAX_FRAME:
            raise ValueError(f"frame of {text_length} + {payload_length} bytes")
        body = _receive_exactly(sock, text_length + payload_length)
        message = json.loads(bytes(body[:text_length]))
        if not isinstance(message, dict):
            raise ValueError(f"a frame holds {type(message).__name__}, not an object")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return message, bytes(body[text_length:]), fds


def _receive_head(sock: socket.socket, fds: list[int]) -> bytes:
    try:
        data, ancillary, _, _ = sock.recvmsg(_HEAD.size, socket.CMSG_SPACE(4 * _MAX_FDS), socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError as error:
        raise ChannelClosedError("the other end of the channel is gone") from error
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(raw[: len(raw) - len(raw) % numbers.itemsize])
            fds.extend(numbers)
    if not data:
        raise ChannelClosedError("the other end of the channel is gone")
    return data + bytes(_receive_exactly(sock, _HEAD.size - len(data)))


def _receive_exactly(sock: socket.socket, count: int) -> bytearray:
    body = bytearray(count)
    view = memoryview(body)
    while view:
        try:
            got = sock.recv_into(view)
        except ConnectionResetError as error:
            raise ChannelClosedError("the other end of the channel is gone") from error
        if not got:
            raise ChannelClosedError("the channel closed in the middle of a frame")
        view = view[got:]
    return body
