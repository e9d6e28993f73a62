/* Preloaded into a server: each call that receives or sends moves a single
 * byte; or, where $FEW is set, each that sends takes three at most, as it may
 * where the socket's buffer has no room for more, and leaves the last one of
 * several for another call. writev() and sendmsg() take seven at most. The
 * other programs that a suite runs are left alone.
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

/* NOLINTBEGIN(*-parameter-name,*-identifier,*-dcl37-c) */

ssize_t recv(int fd, void *buffer, size_t length, int flags)
{
    if (is_server && !few && length > 1)
        length = 1;
    return syscall(SYS_recvfrom, fd, buffer, length, flags, NULL, NULL);
}

/* What recv() is with _FORTIFY_SOURCE=3, the default of some distributions. */
ssize_t __recv_chk(int fd, void *buffer, size_t length, size_t size, int flags)
{
    return recv(fd, buffer, length < size ? length : size, flags);
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

/* These two may also write to the console, which is no socket. */

ssize_t write(int fd, const void *buffer, size_t length)
{
    ssize_t sent = send(fd, buffer, length, 0);
    return sent == -1 && errno == ENOTSOCK
               ? syscall(SYS_write, fd, buffer, length)
               : sent;
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

/* NOLINTEND(*-parameter-name,*-identifier,*-dcl37-c) */
