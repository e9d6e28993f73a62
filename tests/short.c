/* Preloaded into a server: each recv() and send() moves a single byte. The
 * other programs that a suite runs are left alone.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool is_server;

__attribute__((constructor)) static void look_at_name(void)
{
    const char *name = program_invocation_short_name;
    is_server = strncmp(name, "upper_", 6) == 0 ||
                strcmp(name, "keep_alive") == 0 ||
                (name[0] == '0' && name[1] >= '1' && name[1] <= '6');
}

static size_t shorten(size_t length)
{
    return is_server && length > 1 ? 1 : length;
}

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */

ssize_t recv(int fd, void *buffer, size_t length, int flags)
{
    return syscall(SYS_recvfrom, fd, buffer, shorten(length), flags, NULL,
                   NULL);
}

ssize_t send(int fd, const void *buffer, size_t length, int flags)
{
    return syscall(SYS_sendto, fd, buffer, shorten(length), flags, NULL, 0);
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
