"""A renderer that only sends `Hello`: it starts at once, for tests that start and end processes."""

import os
import socket

from lumigraph.wire.live import Hello
from lumigraph.wire.pipe import (
    LIVE_FD_VARIABLE,
    Envelope,
    ViewerJoined,
    decode_renderer_message,
    encode_viewer_message,
    parse_length,
)
from tests.live.camera import CAMERA


def main() -> None:
    connection = socket.socket(fileno=int(os.environ[LIVE_FD_VARIABLE]))
    while prefix := connection.recv(4, socket.MSG_WAITALL):
        message = decode_renderer_message(connection.recv(parse_length(prefix), socket.MSG_WAITALL))
        if isinstance(message, ViewerJoined):
            hello = Hello(viewer=message.viewer, method="none", camera=CAMERA, size=(640, 480), output="rgb")
            connection.sendall(
                encode_viewer_message(Envelope(viewer=message.viewer, text=True), hello.model_dump_json().encode())
            )


if __name__ == "__main__":
    main()
