/* Preloaded into a server: each send() takes three bytes at most, as it may
 * where the socket's buffer has no room for more.
 */
#define _GNU_SOURCE

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */

ssize_t send(int fd, const void *buffer, size_t length, int flags)
{
    return syscall(SYS_sendto, fd, buffer, length > 3 ? 3 : length, flags, NULL,
                   0);
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
