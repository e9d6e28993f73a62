/* usage: reset port bytes times [half]
 *        reset
 *
 * So many times: connects to the port on 127.0.0.1, sends what it has read from
 * its input, half-closes if told so, reads so many bytes of the answer, and
 * resets the connection. Alone, makes its input a connection that is reset when
 * it is closed.
 */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <err.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Instead of saying that it is over, close() will drop the connection. */
static void drop_at_close(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == -1)
        err(EXIT_FAILURE, "setsockopt");
}

static void reset_once(in_port_t port, const char *text, size_t length,
                       size_t bytes, bool half)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd == -1 ||
        connect(fd, (struct sockaddr *)&address, sizeof address) == -1)
        err(EXIT_FAILURE, "connect");
    if (length > 0 && send(fd, text, length, 0) == -1)
        err(EXIT_FAILURE, "send");
    if (half && shutdown(fd, SHUT_WR) == -1)
        err(EXIT_FAILURE, "shutdown");
    if (bytes > 0) {
        static char reply[65536];
        recv(fd, reply, bytes, MSG_WAITALL);
    }
    drop_at_close(fd);
    if (close(fd) == -1)
        err(EXIT_FAILURE, "close");
}

int main(int argc, char *argv[])
{
    static char text[65536];
    if (argc == 1) {
        drop_at_close(STDIN_FILENO);
        return EXIT_SUCCESS;
    }
    signal(SIGPIPE, SIG_IGN);
    in_port_t port = (in_port_t)strtoul(argv[1], NULL, 10);
    size_t bytes = strtoul(argv[2], NULL, 10);
    size_t length = fread(text, 1, sizeof text, stdin);
    for (long times = strtol(argv[3], NULL, 10); times > 0; times--)
        reset_once(port, text, length, bytes, argc == 5);
    return EXIT_SUCCESS;
}
