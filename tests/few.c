/* Preloaded into a server: each send() takes three bytes at most, as it may
 * where the socket's buffer has no room for more, and leaves the last one of
 * several for another call.
 */
#define _GNU_SOURCE

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */

ssize_t send(int fd, const void *buffer, size_t length, int flags)
{
    size_t taken = length > 3 ? 3 : length - (length > 1);
    return syscall(SYS_sendto, fd, buffer, taken, flags, NULL, 0);
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
