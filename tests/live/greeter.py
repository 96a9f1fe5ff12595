"""A renderer that only greets: it starts at once, for tests of who is started and ended when."""

import os
import socket

from lumigraph.wire.live import Hello
from lumigraph.wire.pipe import DESCRIPTOR, Joined, Up, length_of, read_down, up
from tests.live.camera import CAMERA


def main() -> None:
    connection = socket.socket(fileno=int(os.environ[DESCRIPTOR]))
    while prefix := connection.recv(4, socket.MSG_WAITALL):
        message = read_down(connection.recv(length_of(prefix), socket.MSG_WAITALL))
        if isinstance(message, Joined):
            hello = Hello(viewer=message.viewer, method="none", camera=CAMERA, size=(640, 480), output="rgb")
            connection.sendall(up(Up(viewer=message.viewer, text=True), hello.model_dump_json().encode()))


if __name__ == "__main__":
    main()
