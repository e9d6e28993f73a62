/* Preloaded into a server: makes calls of libc fail that strace cannot make
 * fail, or transfer less than they could. clock_gettime() and realloc() are not
 * system calls; close() has to close the descriptor even where it fails, as
 * Linux does; and of epoll_ctl() and fcntl(F_SETFL), only the calls on a
 * connection count.
 *
 * $FAULT_CALL names the call (or "listener", for epoll_ctl() on the listening
 * socket), $FAULT_ERRNO the error; $FAULT_FIRST and
 * $FAULT_SECOND say which of the calls fail. Each adds a line to the file
 * $FAULT_LOG, as strace would. The file $FAULT_CLOCK, if set, says what the
 * clock says, in seconds.
 *
 * If $FAULT_SIZE is "one", each call of a server's that receives or sends moves
 * a single byte. If it is "few", each that sends takes three at most, as it may
 * where the socket's buffer has no room for more, and leaves the last one of
 * several for another call. In both, writev() and sendmsg() take seven at most.
 */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static bool one, few;
static const char *call, *log_path;
static int reason, clock_fd = -1;
static long first, second, calls;

__attribute__((constructor)) static void read_environment(void)
{
    const char *clock_path = getenv("FAULT_CLOCK");
    if (clock_path != NULL) /* now: later, none may be left */
        clock_fd = open(clock_path, O_RDONLY | O_CLOEXEC);
    const char *size = getenv("FAULT_SIZE");
    const char *program = program_invocation_short_name;
    if (size != NULL && /* the other programs of a suite are left alone */
        (strncmp(program, "upper_", 6) == 0 ||
         strcmp(program, "keep_alive") == 0 ||
         (program[0] == '0' && program[1] >= '1' && program[1] <= '6'))) {
        one = strcmp(size, "one") == 0;
        few = !one;
    }
    const char *name = getenv("FAULT_ERRNO");
    const char *first_word = getenv("FAULT_FIRST");
    const char *second_word = getenv("FAULT_SECOND");
    log_path = getenv("FAULT_LOG");
    if (name == NULL || first_word == NULL || second_word == NULL ||
        log_path == NULL)
        return;
    call = getenv("FAULT_CALL");
    first = strtol(first_word, NULL, 10);
    second = strtol(second_word, NULL, 10);
    for (int i = 1; i < 134; i++)
        if (strerrorname_np(i) != NULL && strcmp(strerrorname_np(i), name) == 0)
            reason = i;
}

/* Counts a call. Tells whether it is to fail, and then sets errno. */
static bool fails(const char *name)
{
    if (call == NULL || strcmp(call, name) != 0 ||
        (++calls != first && calls != second))
        return false;
    int log = open(log_path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (dprintf(log, "%s() = -1 %s (%s) (INJECTED)\n", name,
                strerrorname_np(reason), strerror(reason)) < 0)
        abort();
    syscall(SYS_close, log);
    errno = reason;
    return true;
}

static bool is_connection(int fd)
{
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof peer;
    return getpeername(fd, (struct sockaddr *)&peer, &size) == 0 &&
           peer.ss_family == AF_INET;
}

/* NOLINTBEGIN(*-parameter-name,*-identifier,*-dcl37-c) */

int close(int fd)
{
    long result = syscall(SYS_close, fd);
    return fails("close") ? -1 : (int)result;
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    int listens = 0;
    socklen_t size = sizeof listens;
    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    if ((is_connection(fd) && fails("epoll_ctl")) ||
        (listens && fails("listener")))
        return -1;
    return (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);
}

int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);
    if (command == F_SETFL && is_connection(fd) && fails("fcntl"))
        return -1;
    return (int)syscall(SYS_fcntl, fd, command, argument);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static char said[20];
    if (fails("clock_gettime"))
        return -1;
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (clock_fd != -1 && pread(clock_fd, said, sizeof said - 1, 0) != -1)
        *now = (struct timespec){.tv_sec = strtol(said, NULL, 10)};
    return result;
}

void *realloc(void *old, size_t size)
{
    static void *(*hidden)(void *, size_t);
    if (fails("realloc"))
        return NULL;
    if (hidden == NULL) {
        void *symbol = dlsym(RTLD_NEXT, "realloc"); /* which this one hides */
        memcpy(&hidden, &symbol, sizeof symbol);
    }
    return hidden(old, size);
}

ssize_t recv(int fd, void *buffer, size_t length, int flags)
{
    if (one && length > 1)
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
    if ((one || few) && length > 1)
        length = one ? 1 : length > 3 ? 3 : length - 1;
    return syscall(SYS_sendto, fd, buffer, length, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec parts[8];
    struct msghdr some = *message;
    size_t room = 7; /* across the border of two parts */
    for (size_t i = 0; (one || few) && i < message->msg_iovlen && i < 8; i++) {
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
