/* upper_server: a conversation, on connections that stay open.
 *
 * Each client has what it sends sent back in capitals. One chunk of it is on
 * the way at any time, so a connection waits by turns for EPOLLIN (something to
 * read) and EPOLLOUT (room to write), and a client that does not read is not
 * read from. Level-triggered: compare server.c beside this file.
 *
 * Try: ./upper_server     and in a second terminal: ./upper_client
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME "upper_server"
#define USAGE "usage: " NAME " [port [address]]\n"

enum { CHUNK_SIZE = 1024, MAX_EVENTS = 64 }; /* bytes; in one turn */

/* Returns a call's result. A failure ends the program, with the reason. */
static int check(int result, const char *call)
{
    if (result >= 0)
        return result;
    fprintf(stderr, NAME ": %s: %s\n", call, strerror(errno));
    exit(EXIT_FAILURE);
}

/* Ends the program where a call has shown that the program itself is wrong. */
static void fail_if_broken(const char *call)
{
    if (errno == EBADF || errno == EFAULT || errno == EINVAL ||
        errno == ENOTSOCK)
        check(-1, call);
}

/* Closes a descriptor. Even after EINTR it is gone: close(2). */
static void close_descriptor(int fd)
{
    if (close(fd) == -1)
        fail_if_broken("close");
}

/* Says what is wrong with the command line, and ends the program. */
static void fail_usage(const char *what, const char *word)
{
    fprintf(stderr, NAME ": %s: '%s'\n" USAGE, what, word);
    exit(2);
}

/* Returns the address that the command line asks for. */
static struct sockaddr_in parse_arguments(int argc, char *argv[])
{
    const char *port_word = argc > 1 ? argv[1] : "1688";
    const char *address_word = argc > 2 ? argv[2] : "127.0.0.1";
    if (strcmp(port_word, "-h") == 0 || strcmp(port_word, "--help") == 0) {
        fputs(USAGE, stdout);
        exit(EXIT_SUCCESS);
    }
    char *end;
    unsigned long port = strtoul(port_word, &end, 10);
    if (!isdigit((unsigned char)*port_word) || *end != '\0' || port > 65535)
        fail_usage("neither a port from 0 to 65535 nor an option", port_word);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_port = htons((in_port_t)port);
    if (inet_pton(AF_INET, address_word, &address.sin_addr) != 1)
        fail_usage("not an IPv4 address", address_word);
    if (argc > 3)
        fail_usage("one word too many", argv[3]);
    return address;
}

/* Returns a socket that listens on the address. */
static int open_listener(struct sockaddr_in address)
{
    int listener = check(socket(AF_INET, SOCK_STREAM, 0), "socket");
    int on = 1; /* or a restart would have to wait for TIME_WAIT to pass */
    check(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on),
          "setsockopt");
    check(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    check(listen(listener, SOMAXCONN), "listen");
    return listener;
}

static volatile sig_atomic_t stopping;

/* Interrupts the call that the program waits in. One that was only about to
 * begin would miss the signal, so another one follows every second. */
static void stop(int signal_number)
{
    (void)signal_number;
    stopping = 1;
    alarm(1);
}

/* From here on, SIGINT and SIGTERM set `stopping`. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = stop}; /* without SA_RESTART */
    check(sigaction(SIGINT, &action, NULL), "sigaction");
    check(sigaction(SIGTERM, &action, NULL), "sigaction");
    check(sigaction(SIGALRM, &action, NULL), "sigaction");
    sigset_t none;
    sigemptyset(&none);
    check(sigprocmask(SIG_SETMASK, &none, NULL), "sigprocmask");
}

/* Says on stdout where clients find the server. */
static void announce(int listener)
{
    struct sockaddr_in address = {0};
    socklen_t size = sizeof address;
    check(getsockname(listener, (struct sockaddr *)&address, &size),
          "getsockname");
    while (dprintf(STDOUT_FILENO, "listening on %s:%d\n",
                   inet_ntoa(address.sin_addr), ntohs(address.sin_port)) < 0 &&
           !stopping)
        check(errno == EINTR ? 0 : -1, "write");
}

/* Writes to the console. What it does not take is lost: a console that is full
 * or gone is not worth a client. */
static void write_console(const char *text, size_t length)
{
    static bool stuck;
    while (!stuck && write(STDOUT_FILENO, text, length) == -1 && errno == EINTR)
        stuck = stopping;
}

struct connection {
    int fd;
    char chunk[CHUNK_SIZE];
    size_t length; /* of the chunk */
    size_t sent;   /* of its bytes */
    bool over;
    struct connection *previous, *next;
};

static int epoll;

/* All connections, in a ring around this one. */
static struct connection ring = {.previous = &ring, .next = &ring};

static bool paused; /* accept nobody in this turn */

/* Closes the socket and forgets the connection. */
static void close_connection(struct connection *connection)
{
    close_descriptor(connection->fd);
    connection->previous->next = connection->next;
    connection->next->previous = connection->previous;
    paused = false; /* there is room for another */
    free(connection);
}

/* A call on a connection has failed. EINTR and EAGAIN ask for it to be made
 * again. Anything else is the end of this connection, and of no other. */
static void handle_error(struct connection *connection, const char *call)
{
    fail_if_broken(call);
    if (errno != EINTR && errno != EAGAIN)
        connection->over = true;
}

/* Shows an event on the console. */
static void print_event(int fd, uint32_t events)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } flags[] = {{EPOLLIN, "EPOLLIN"},
                 {EPOLLOUT, "EPOLLOUT"},
                 {EPOLLERR, "EPOLLERR"},
                 {EPOLLHUP, "EPOLLHUP"}};
    char text[64];
    int length = snprintf(text, sizeof text, "fd %d:", fd);
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if ((events & flags[i].bit) != 0)
            length += sprintf(text + length, "|%s", flags[i].name);
    *strchr(text, '|') = ' ';
    text[length++] = '\n';
    write_console(text, (size_t)length);
}

/* Reads a chunk, and turns it into capitals. */
static void read_chunk(struct connection *connection)
{
    ssize_t received = recv(connection->fd, connection->chunk, CHUNK_SIZE, 0);
    if (received == -1) {
        handle_error(connection, "recv");
        return;
    }
    connection->over = received == 0;
    connection->length = (size_t)received;
    connection->sent = 0;
    for (size_t i = 0; i < connection->length; i++)
        connection->chunk[i] =
            (char)toupper((unsigned char)connection->chunk[i]);
}

/* Writes as much of the chunk as there is room for. */
static void write_chunk(struct connection *connection)
{
    ssize_t sent = send(connection->fd, connection->chunk + connection->sent,
                        connection->length - connection->sent, 0);
    if (sent == -1)
        handle_error(connection, "send");
    else
        connection->sent += (size_t)sent;
}

/* Tells epoll which events to report of a descriptor, and with which pointer.
 * Returns false where it has no room for that: ENOMEM, ENOSPC. */
static bool watch(int operation, int fd, uint32_t events, void *pointer)
{
    struct epoll_event event = {.events = events, .data.ptr = pointer};
    if (epoll_ctl(epoll, operation, fd, &event) == 0)
        return true;
    fail_if_broken("epoll_ctl");
    return false;
}

/* Goes a step further with a connection: one recv() or one send(). */
static void advance(struct connection *connection)
{
    bool writing = connection->sent < connection->length;
    if (writing)
        write_chunk(connection);
    else
        read_chunk(connection);
    bool more_to_write = connection->sent < connection->length;
    if (connection->over ||
        (more_to_write != writing &&
         !watch(EPOLL_CTL_MOD, connection->fd,
                more_to_write ? EPOLLOUT : EPOLLIN, connection)))
        close_connection(connection);
}

/* A newcomer could not be taken. Where nobody came, or left at once, that is
 * all. Where descriptors or memory have run out, it will fail again: says so,
 * once, and pauses for a turn. Meanwhile the clients wait in the backlog. */
static void handle_accept_error(const char *call)
{
    static bool said;
    fail_if_broken(call);
    if (errno == EINTR || errno == EAGAIN || errno == ECONNABORTED)
        return;
    if (!said)
        fprintf(stderr, NAME ": %s: %s\n", call, strerror(errno));
    said = true;
    paused = true;
}

/* Takes a client from the backlog. */
static void accept_connection(int listener)
{
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection != NULL)
        connection->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    bool accepted = connection != NULL && connection->fd != -1;
    if (!accepted ||
        !watch(EPOLL_CTL_ADD, connection->fd, EPOLLIN, connection)) {
        handle_accept_error(accepted ? "epoll_ctl" : "accept4");
        if (accepted)
            close_descriptor(connection->fd);
        free(connection);
        return;
    }
    connection->previous = ring.previous;
    connection->next = &ring;
    ring.previous->next = connection;
    ring.previous = connection;
}

/* Waits until a socket is ready or a signal comes. Returns how many sockets are
 * ready. */
static int wait_for_events(int listener, struct epoll_event *events)
{
    int limit_ms = paused ? 1000 : -1;
    if (paused)
        watch(EPOLL_CTL_MOD, listener, 0, NULL);

    /* This wait misses none: signals are held back from before the look at
     * `stopping`, and only the wait itself lets them in. */
    sigset_t all, before;
    sigfillset(&all);
    check(sigprocmask(SIG_BLOCK, &all, &before), "sigprocmask");
    int count = 0;
    if (!stopping)
        count = epoll_pwait(epoll, events, MAX_EVENTS, limit_ms, &before);
    check(sigprocmask(SIG_SETMASK, &before, NULL), "sigprocmask");

    if (count == -1 && errno != EINTR)
        check(-1, "epoll_pwait");
    if (paused)
        paused = !watch(EPOLL_CTL_MOD, listener, EPOLLIN, NULL);
    return count;
}

int main(int argc, char *argv[])
{
    check(signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -1 : 0, "signal"); /* EPIPE */
    int listener = open_listener(parse_arguments(argc, argv));
    check(fcntl(listener, F_SETFL, O_NONBLOCK), "fcntl");
    epoll = check(epoll_create1(0), "epoll_create1");
    if (!watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL))
        check(-1, "epoll_ctl");
    catch_signals();
    announce(listener);

    while (!stopping) {
        struct epoll_event events[MAX_EVENTS];
        int count = wait_for_events(listener, events);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            print_event(connection == NULL ? listener : connection->fd,
                        events[i].events);
            if (connection == NULL)
                accept_connection(listener);
            else
                advance(connection);
        }
    }
    while (ring.next != &ring)
        close_connection(ring.next);
    close_descriptor(epoll);
    close_descriptor(listener);
    return EXIT_SUCCESS;
}
