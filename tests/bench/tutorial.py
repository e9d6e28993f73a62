#!/usr/bin/env python3
"""The tutorial's server, level-triggered epoll in Python, to compare with.

Written anew after the tutorial's description, and as trusting as that: no
error is handled, and no client is ever given up. Its backlog is the one thing
made larger: with the tutorial's, of one, most of 50 clients that come at once
would wait a second for their second SYN.

usage: tutorial.py port
"""

import select
import socket
import sys

BLANK_LINES = (b"\n\n", b"\n\r\n")
HELLO = b"\r\n".join((
    b"HTTP/1.0 200 OK",
    b"Date: Mon, 1 Jan 1996 01:01:01 GMT",
    b"Content-Type: text/plain",
    b"Content-Length: 13",
    b"",
    b"Hello, world!",
))


def serve(listener, epoll):
    """Serves clients for ever; three tables tell what is known of each."""
    clients, asked, unsent = {}, {}, {}
    listening_fd = listener.fileno()
    while True:
        for fd, happened in epoll.poll(1):
            if fd == listening_fd:
                client, _ = listener.accept()
                client.setblocking(False)
                epoll.register(client.fileno(), select.EPOLLIN)
                clients[client.fileno()] = client
                asked[client.fileno()] = b""
                unsent[client.fileno()] = HELLO
            elif happened & select.EPOLLIN:
                asked[fd] += clients[fd].recv(1024)
                if any(blank in asked[fd] for blank in BLANK_LINES):
                    epoll.modify(fd, select.EPOLLOUT)
                    print("-" * 40, asked[fd].decode()[:-2], sep="\n")
            elif happened & select.EPOLLOUT:
                unsent[fd] = unsent[fd][clients[fd].send(unsent[fd]):]
                if not unsent[fd]:
                    epoll.modify(fd, 0)
                    clients[fd].shutdown(socket.SHUT_RDWR)
            elif happened & select.EPOLLHUP:
                epoll.unregister(fd)
                clients.pop(fd).close()


# On loopback alone.
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen(socket.SOMAXCONN)
listener.setblocking(False)
epoll = select.epoll()
epoll.register(listener.fileno(), select.EPOLLIN)
serve(listener, epoll)
