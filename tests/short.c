/* Preloaded into a server: each recv() and send() moves a single byte; or,
 * where $FEW is set, each send() takes three at most, as it may where the
 * socket's buffer has no room for more, and leaves the last one of several for
 * another call. writev() and sendmsg() take seven. The other programs that a
 * suite runs are left alone.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static bool is_server, few;

__attribute__((constructor)) static void look_around(void)
{
    const char *name = program_invocation_short_name;
    is_server = strncmp(name, "upper_", 6) == 0 ||
                strcmp(name, "keep_alive") == 0 ||
                (name[0] == '0' && name[1] >= '1' && name[1] <= '6');
    few = getenv("FEW") != NULL;
}

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */

ssize_t recv(int fd, void *buffer, size_t length, int flags)
{
    if (is_server && !few && length > 1)
        length = 1;
    return syscall(SYS_recvfrom, fd, buffer, length, flags, NULL, NULL);
}

ssize_t send(int fd, const void *buffer, size_t length, int flags)
{
    if (is_server && length > 1)
        length = !few ? 1 : length > 3 ? 3 : length - 1;
    return syscall(SYS_sendto, fd, buffer, length, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec parts[8];
    struct msghdr some = *message;
    size_t room = 7; /* across the border of two parts */
    for (size_t i = 0; is_server && i < message->msg_iovlen && i < 8; i++) {
        parts[i] = message->msg_iov[i];
        if (parts[i].iov_len > room)
            parts[i].iov_len = room;
        room -= parts[i].iov_len;
        some.msg_iov = parts;
        some.msg_iovlen = i + 1;
    }
    return syscall(SYS_sendmsg, fd, &some, flags);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)parts,
                             .msg_iovlen = (size_t)count};
    ssize_t sent = sendmsg(fd, &message, 0);
    return sent == -1 && errno == ENOTSOCK
               ? syscall(SYS_writev, fd, parts, count)
               : sent;
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
