/* 06_tcp_options: many requests on a connection, and when TCP sends.
 *
 * New since 05_epoll_et: HTTP/1.1 keeps the connection open, and a client may
 * send its next requests without waiting. A response is two send() calls; what
 * they become on the wire is up to TCP, and to TCP_CORK or TCP_NODELAY.
 *
 * Try: curl -s -w ' %{time_total}\n' '127.0.0.1:8080/[1-3]'
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NAME "06_tcp_options"
#define USAGE "usage: " NAME " [--cork | --nodelay] [port [address]]\n"

#define HEAD                                                                   \
    "HTTP/1.1 200 OK\r\n"                                                      \
    "Date: Mon, 1 Jan 1996 01:01:01 GMT\r\n"                                   \
    "Content-Type: text/plain\r\n"                                             \
    "Content-Length: 13\r\n"

static const char head[] = HEAD "\r\n";
static const char last_head[] = HEAD "Connection: close\r\n\r\n";
static const char hello[] = "Hello, world!";

static enum { PLAIN, CORK, NODELAY } mode;
static const char *const mode_names[] = {"plain", "cork", "nodelay"};

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
    const char *body;   /* of the response, after its head; or NULL */
    bool more_may_come; /* behind the request */
    bool keep_alive;    /* for another request */
    bool corked;
    size_t request_length; /* the first, where `request` holds several */
    unsigned responses;
    long long deadline_ms;
    struct connection *previous, *next;
    bool ready; /* no call has said EAGAIN since the last event */
    struct connection *next_ready;
};

#ifndef IDLE_SECONDS
#define IDLE_SECONDS 30
#endif

enum { MAX_EVENTS = 64 }; /* taken over in one turn */
enum { MAX_STEPS = 16 };  /* of each connection in one turn */

static int epoll;

/* All connections, in a ring around this one; first the next to be overdue. */
static struct connection ring = {.previous = &ring, .next = &ring};

static bool paused; /* accept nobody in this turn */

static bool backlog_ready; /* accept4() has not said EAGAIN since its event */
static struct connection *ready_list;

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

/* Says what TCP made of the responses. */
static void report_segments(const struct connection *connection)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (shutdown(connection->fd, SHUT_WR) == -1) /* nothing is held back now */
        fail_if_broken("shutdown");
    if (getsockopt(connection->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == -1) {
        fail_if_broken("getsockopt");
        return;
    }
    char text[80];
    int length = snprintf(
        text, sizeof text,
        "closed after %u responses in %u data segments (%s)\n",
        connection->responses, info.tcpi_data_segs_out, mode_names[mode]);
    write_console(text, (size_t)length);
}

/* Closes the socket and forgets the connection. */
static void close_connection(struct connection *connection)
{
    report_segments(connection);
    close_descriptor(connection->fd);
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
    if (errno == EAGAIN)
        connection->ready = false;
    else if (errno != EINTR)
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

/* Holds back what does not fill a segment, or sends it after all: tcp(7). */
static void set_cork(struct connection *connection, int on)
{
    if (mode != CORK || connection->corked == on)
        return;
    connection->corked = on;
    if (setsockopt(connection->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on) == -1)
        handle_error(connection, "setsockopt");
}

/* Tells whether the client keeps the connection open: RFC 9112, section 9.3. */
static bool is_persistent(const char *request, size_t length)
{
    size_t first_line = strcspn(request, "\r\n");
    if (first_line < 9 || memcmp(request + first_line - 9, " HTTP/1.1", 9) != 0)
        return false;
    for (size_t i = 0; i + 1 < length; i++) {
        const char *line = request + i + 1;
        if (request[i] != '\n' || strncasecmp(line, "Connection:", 11) != 0)
            continue;
        for (; *line != '\n'; line++)
            if (strncasecmp(line, "close", 5) == 0)
                return false;
    }
    return true;
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
    connection->request_length = end;
    connection->keep_alive = plain && is_persistent(request, end);
    connection->response = !whole ? too_large : plain ? head : last_head;
    connection->body =
        whole && strncmp(request, "HEAD ", 5) != 0 ? hello : NULL;
    connection->unsent = strlen(connection->response);
    connection->state = WRITING;
    set_cork(connection, true);
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

/* Goes on to what stands behind the request that has been answered. */
static void next_request(struct connection *connection)
{
    connection->length -= connection->request_length;
    memmove(connection->request,
            connection->request + connection->request_length,
            connection->length + 1);
    connection->state = READING;
    answer_request(connection);
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
    if (connection->body != NULL) {
        connection->response = connection->body;
        connection->unsent = strlen(connection->body);
        connection->body = NULL;
        return;
    }
    connection->responses++;
    leave_ring(connection);
    enter_ring(connection);
    if (connection->keep_alive) {
        next_request(connection);
        return;
    }
    connection->state = connection->more_may_come ? CLOSING : CLOSED;
    if (connection->state == CLOSING && shutdown(connection->fd, SHUT_WR) == -1)
        handle_error(connection, "shutdown");
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

/* Remembers that a connection is ready. */
static void mark_ready(struct connection *connection)
{
    connection->ready = true;
    connection->next_ready = ready_list;
    ready_list = connection;
}

/* Goes on with a connection until a call says EAGAIN. Where the client is too
 * busy for that, the others have their turn after MAX_STEPS. */
static void advance(struct connection *connection)
{
    enum state before = connection->state;
    int steps = MAX_STEPS;
    while (connection->ready && connection->state != CLOSED && steps-- > 0) {
        if (connection->state == WRITING)
            write_response(connection);
        else
            read_request(connection);
    }
    if (connection->state == READING && !connection->ready)
        set_cork(connection, false); /* all that came has been answered */
    if (connection->state == CLOSED) {
        close_connection(connection);
        return;
    }
    if (connection->state != before) {
        leave_ring(connection);
        enter_ring(connection);
    }
    if (connection->ready)
        mark_ready(connection);
}

/* Goes on with all connections that are ready. */
static void advance_ready(void)
{
    struct connection *list = ready_list;
    ready_list = NULL;
    while (list != NULL) {
        struct connection *connection = list;
        list = connection->next_ready;
        advance(connection);
    }
}

/* A newcomer could not be taken. Where nobody came, or left at once, that is
 * all. Where descriptors or memory have run out, it will fail again: says so,
 * once, and pauses for a turn. Meanwhile the clients wait in the backlog. */
static void handle_accept_error(const char *call)
{
    static bool said;
    fail_if_broken(call);
    if (errno == EAGAIN)
        backlog_ready = false;
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
    if (!accepted || !watch(EPOLL_CTL_ADD, connection->fd,
                            EPOLLIN | EPOLLOUT | EPOLLET, connection)) {
        handle_accept_error(accepted ? "epoll_ctl" : "accept4");
        if (accepted)
            close_descriptor(connection->fd);
        free(connection);
        return;
    }
    enter_ring(connection);
}

/* Closes the connections that are out of time. Returns how many milliseconds
 * the next wait may last, or -1 for any time. */
static int close_overdue(void)
{
    long long now = now_ms();
    for (struct connection *overdue = ring.next;
         overdue != &ring && overdue->deadline_ms <= now;
         overdue = overdue->next) {
        overdue->state = CLOSED; /* for advance(): it may be on the list */
        if (!overdue->ready)
            mark_ready(overdue);
    }
    if (ready_list != NULL || (backlog_ready && !paused))
        return 0;
    int limit_ms = paused ? 1000 : -1;
    if (ring.next != &ring && (!paused || ring.next->deadline_ms < now + 1000))
        limit_ms = (int)(ring.next->deadline_ms - now);
    return limit_ms;
}

/* Waits until a socket is ready, a connection is out of time or a signal comes.
 * Returns how many sockets are ready. */
static int wait_for_events(struct epoll_event *events)
{
    int limit_ms = close_overdue();

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
    paused = false;
    return count;
}

/* Takes --cork and --nodelay out of the command line. Returns what is left. */
static int parse_mode(int argc, char *argv[])
{
    int left = 1;
    for (int i = 1; i < argc; i++) {
        bool cork = strcmp(argv[i], "--cork") == 0;
        bool nodelay = strcmp(argv[i], "--nodelay") == 0;
        if (!cork && !nodelay)
            argv[left++] = argv[i];
        else if (mode != PLAIN)
            fail_usage("only one such option, please", argv[i]);
        else
            mode = cork ? CORK : NODELAY;
    }
    return left;
}

int main(int argc, char *argv[])
{
    argc = parse_mode(argc, argv);
    check(signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -1 : 0, "signal"); /* EPIPE */
    int listener = open_listener(parse_arguments(argc, argv));
    int on = 1;
    if (mode == NODELAY)
        check(setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on),
              "setsockopt");
    check(fcntl(listener, F_SETFL, O_NONBLOCK), "fcntl");
    epoll = check(epoll_create1(0), "epoll_create1");
    if (!watch(EPOLL_CTL_ADD, listener, EPOLLIN | EPOLLET, NULL))
        check(-1, "epoll_ctl");
    catch_signals();
    announce(listener);

    while (!stopping) {
        struct epoll_event events[MAX_EVENTS];
        int count = wait_for_events(events);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection == NULL)
                backlog_ready = true;
            else if (!connection->ready && (connection->state == WRITING ||
                                            events[i].events != EPOLLOUT))
                mark_ready(connection);
        }
        for (int i = 0; i < MAX_EVENTS && backlog_ready && !paused; i++)
            accept_connection(listener);
        advance_ready();
    }
    while (ring.next != &ring)
        close_connection(ring.next);
    close_descriptor(epoll);
    close_descriptor(listener);
    return EXIT_SUCCESS;
}
