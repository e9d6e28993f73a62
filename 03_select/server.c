/* 03_select: many clients at once.
 *
 * New since 02_blocking_loop: no call on a socket waits any more. The program
 * waits in one place, pselect(), for all sockets together, and goes a step
 * further with each connection that is ready.
 *
 * Try: start `nc 127.0.0.1 8080` in two terminals, and type a request into each
 *      by turns, line by line; an empty line ends it.
 */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NAME "03_select"
#define USAGE "usage: " NAME " [port [address]]\n"

static const char hello[] = "HTTP/1.0 200 OK\r\n"
                            "Date: Mon, 1 Jan 1996 01:01:01 GMT\r\n"
                            "Content-Type: text/plain\r\n"
                            "Content-Length: 13\r\n\r\n"
                            "Hello, world!";

/* ---- The same in all six stages, down to the next such line. ---- */

static const char too_large[] = "HTTP/1.0 431 Request Header Fields Too Large"
                                "\r\nContent-Length: 0\r\n\r\n";

enum { PIECE_SIZE = 1024, MAX_REQUEST = 8192 }; /* bytes */

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
    const char *port_word = argc > 1 ? argv[1] : "8080";
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

/* Returns the length of the request, with the blank line that ends it, or 0
 * where that has not come yet. */
static size_t find_end(const char *request, size_t length)
{
    for (size_t i = 1; i < length; i++)
        if (request[i] == '\n' &&
            (request[i - 1] == '\n' ||
             (request[i - 1] == '\r' && i > 1 && request[i - 2] == '\n')))
            return i + 1;
    return 0;
}

/* Tells whether the request is a GET or HEAD that announces no body. */
static bool is_plain(const char *request, size_t length)
{
    for (size_t i = 0; i + 1 < length; i++) {
        const char *line = request + i + 1;
        if (request[i] == '\n' &&
            (strncasecmp(line, "Transfer-Encoding", 17) == 0 ||
             (strncasecmp(line, "Content-Length", 14) == 0 &&
              line[14 + strspn(line + 14, ": \t0\r")] != '\n')))
            return false;
    }
    return strncmp(request, "GET ", 4) == 0 ||
           strncmp(request, "HEAD ", 5) == 0;
}

/* ---- The connection, and what is done with it. ---- */

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
    while (dprintf(STDOUT_FILENO, "listening on http://%s:%d/\n",
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

/* CLOSING: half-closed; what still comes is thrown away. */
enum state { READING, WRITING, CLOSING, CLOSED };

struct connection {
    int fd;
    enum state state;
    char *request;
    size_t length; /* bytes of the request that have come */
    const char *response;
    size_t unsent;      /* bytes of the response that have not left */
    bool more_may_come; /* behind the request */
    long long deadline_ms;
    struct connection *previous, *next;
};

#ifndef IDLE_SECONDS
#define IDLE_SECONDS 30
#endif

static const char unavailable[] = "HTTP/1.0 503 Service Unavailable\r\n"
                                  "Content-Length: 0\r\n\r\n";

/* All connections, by descriptor. */
static struct connection *connections[FD_SETSIZE];
static struct connection *refused; /* the last that was too many, or NULL */

/* All connections, in a ring around this one; first the next to be overdue. */
static struct connection ring = {.previous = &ring, .next = &ring};

static bool paused; /* accept nobody in this turn */

static long long now_ms(void)
{
    struct timespec now;
    check(clock_gettime(CLOCK_MONOTONIC, &now), "clock_gettime");
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void leave_ring(struct connection *connection)
{
    connection->previous->next = connection->next;
    connection->next->previous = connection->previous;
}

/* Gives a connection its time. All get the same, so its place is the last. */
static void enter_ring(struct connection *connection)
{
    connection->deadline_ms = now_ms() + IDLE_SECONDS * 1000LL;
    connection->previous = ring.previous;
    connection->next = &ring;
    ring.previous->next = connection;
    ring.previous = connection;
}

/* Closes the socket and forgets the connection. */
static void close_connection(struct connection *connection)
{
    close_descriptor(connection->fd);
    if (connection->fd < FD_SETSIZE)
        connections[connection->fd] = NULL;
    else
        refused = NULL;
    leave_ring(connection);
    paused = false; /* there is room for another */
    free(connection->request);
    free(connection);
}

/* A call on a connection has failed. EINTR and EAGAIN ask for it to be made
 * again. Anything else is the end of this connection, and of no other. */
static void handle_error(struct connection *connection, const char *call)
{
    fail_if_broken(call);
    if (errno != EINTR && errno != EAGAIN)
        connection->state = CLOSED;
}

/* Shows a request, with nothing in it that a terminal would obey. */
static void print_request(const char *request, size_t length)
{
    char text[4 * MAX_REQUEST + 64];
    char *end = stpcpy(text, "----------------------------------------\n");
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)request[i];
        if (isprint(byte) || byte == '\t' || byte == '\n')
            *end++ = request[i];
        else if (byte != '\r' || request[i + 1] != '\n')
            end += sprintf(end, "\\x%02x", byte);
    }
    write_console(text, (size_t)(end - text));
}

/* Chooses the response, once the request is complete or too long. */
static void answer_request(struct connection *connection)
{
    const char *request = connection->request;
    size_t end = find_end(request, connection->length);
    if (end == 0 && connection->length < MAX_REQUEST)
        return;
    bool whole = end > 0 && end <= MAX_REQUEST;
    if (whole)
        print_request(request, end);
    bool plain = whole && is_plain(request, end);
    if (!plain || end < connection->length)
        connection->more_may_come = true;
    connection->response = whole ? hello : too_large;
    connection->unsent = strlen(connection->response);
    connection->state = WRITING;
}

/* Reads one piece of the request. After the response, throws it away. */
static void read_request(struct connection *connection)
{
    size_t length = connection->length;
    char *request = realloc(connection->request, length + PIECE_SIZE + 1);
    if (request == NULL) {
        handle_error(connection, "realloc");
        return;
    }
    connection->request = request;
    ssize_t received = recv(connection->fd, request + length, PIECE_SIZE, 0);
    if (received == -1) {
        handle_error(connection, "recv");
    } else if (received == 0) {
        connection->state = CLOSED; /* the client has nothing more to say */
    } else if (connection->state == READING) {
        connection->length += (size_t)received;
        connection->more_may_come = received == PIECE_SIZE; /* not all read */
        request[connection->length] = '\0';
        answer_request(connection);
    }
}

/* Writes as much of the response as there is room for. After its last byte,
 * closing while data can still come would reset the connection, and the client
 * could lose the response: say that it is over, and let the client close. */
static void write_response(struct connection *connection)
{
    ssize_t sent =
        send(connection->fd, connection->response, connection->unsent, 0);
    if (sent == -1) {
        handle_error(connection, "send");
        return;
    }
    connection->response += sent;
    connection->unsent -= (size_t)sent;
    if (connection->unsent > 0)
        return;
    connection->state = connection->more_may_come ? CLOSING : CLOSED;
    if (connection->state == CLOSING && shutdown(connection->fd, SHUT_WR) == -1)
        handle_error(connection, "shutdown");
}

/* Goes a step further with a connection: one recv() or one send(). */
static void advance(struct connection *connection)
{
    enum state before = connection->state;
    if (connection->state == WRITING)
        write_response(connection);
    else
        read_request(connection);
    if (connection->state == CLOSED) {
        close_connection(connection);
        return;
    }
    if (connection->state != before) {
        leave_ring(connection);
        enter_ring(connection);
    }
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

/* Tells a client that it does not fit into an fd_set. As pselect() cannot wait
 * for it to close, it is closed after the next such client, or when overdue. */
static void refuse(struct connection *connection)
{
    if (refused != NULL)
        close_connection(refused);
    refused = connection;
    connection->response = unavailable;
    connection->unsent = strlen(unavailable);
    connection->more_may_come = true;
    connection->state = WRITING;
    advance(connection);
}

/* Takes a client from the backlog. */
static void accept_connection(int listener)
{
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection != NULL)
        connection->fd = accept(listener, NULL, NULL);
    bool accepted = connection != NULL && connection->fd != -1;
    if (!accepted || fcntl(connection->fd, F_SETFL, O_NONBLOCK) == -1) {
        handle_accept_error(accepted ? "fcntl" : "accept");
        if (accepted)
            close_descriptor(connection->fd);
        free(connection);
        return;
    }
    enter_ring(connection);
    if (connection->fd < FD_SETSIZE)
        connections[connection->fd] = connection;
    else
        refuse(connection);
}

/* Closes the connections that are out of time. Returns how many milliseconds
 * the next wait may last, or -1 for any time. */
static int close_overdue(void)
{
    long long now = now_ms();
    while (ring.next != &ring && ring.next->deadline_ms <= now)
        close_connection(ring.next);
    int limit_ms = paused ? 1000 : -1;
    if (ring.next != &ring && (!paused || ring.next->deadline_ms < now + 1000))
        limit_ms = (int)(ring.next->deadline_ms - now);
    return limit_ms;
}

/* Waits until a socket is ready, a connection is out of time or a signal comes.
 * Returns how many sockets are ready. The sets are question and answer at once,
 * so they are made anew on every turn. */
static int wait_for_sockets(int listener, fd_set *readable, fd_set *writable)
{
    int limit_ms = close_overdue();
    struct timespec limit = {limit_ms / 1000, limit_ms % 1000 * 1000000L};

    FD_ZERO(readable);
    FD_ZERO(writable);
    if (!paused)
        FD_SET(listener, readable);
    for (int fd = 0; fd < FD_SETSIZE; fd++)
        if (connections[fd] != NULL)
            FD_SET(fd, connections[fd]->state == WRITING ? writable : readable);

    /* This wait misses none: signals are held back from before the look at
     * `stopping`, and only the wait itself lets them in. */
    sigset_t all, before;
    sigfillset(&all);
    check(sigprocmask(SIG_BLOCK, &all, &before), "sigprocmask");
    int ready = 0;
    if (!stopping)
        ready = pselect(FD_SETSIZE, readable, writable, NULL,
                        limit_ms < 0 ? NULL : &limit, &before);
    check(sigprocmask(SIG_SETMASK, &before, NULL), "sigprocmask");

    if (ready == -1 && errno == ENOMEM)
        sleep(1);
    else if (ready == -1 && errno != EINTR)
        check(-1, "pselect");
    paused = false;
    return ready;
}

int main(int argc, char *argv[])
{
    check(signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -1 : 0, "signal"); /* EPIPE */
    int listener = open_listener(parse_arguments(argc, argv));
    check(fcntl(listener, F_SETFL, O_NONBLOCK), "fcntl");
    if (listener >= FD_SETSIZE) {
        errno = EMFILE; /* for pselect(), there are no more descriptors */
        check(-1, "socket");
    }
    catch_signals();
    announce(listener);

    while (!stopping) {
        fd_set readable, writable;
        int ready = wait_for_sockets(listener, &readable, &writable);
        if (ready > 0 && FD_ISSET(listener, &readable))
            accept_connection(listener);
        for (int fd = 0; ready > 0 && fd < FD_SETSIZE; fd++)
            if (connections[fd] != NULL &&
                (FD_ISSET(fd, &readable) || FD_ISSET(fd, &writable)))
                advance(connections[fd]);
    }
    while (ring.next != &ring)
        close_connection(ring.next);
    close_descriptor(listener);
    return EXIT_SUCCESS;
}
