/* 06_tcp_options: many requests on a connection, and when TCP sends.
 *
 * New since 05_epoll_et: HTTP/1.1 keeps the connection open (not for ever), and
 * a client may send its next requests without waiting. A response is two send()
 * calls; what becomes of them on the wire is up to TCP_CORK and TCP_NODELAY.
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
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NAME "06_tcp_options"
#define USAGE "usage: " NAME " [--cork | --nodelay] [port [address]]\n"

#define HEAD                                                                   \
    "HTTP/1.1 200 OK\r\nDate: Mon, 1 Jan 1996 01:01:01 GMT\r\n"                \
    "Content-Type: text/plain\r\nContent-Length: 13\r\n"
static const char head[] = HEAD "\r\n";
static const char last_head[] = HEAD "Connection: close\r\n\r\n";
static const char hello[] = "Hello, world!";

#ifndef IDLE_SECONDS
#define IDLE_SECONDS 30
#endif

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

/* Says on stdout where clients find the server. */
static void announce(int listener)
{
    struct sockaddr_in address = {0};
    socklen_t size = sizeof address;
    check(getsockname(listener, (struct sockaddr *)&address, &size),
          "getsockname");
    check(dprintf(STDOUT_FILENO, "listening on http://%s:%d/\n",
                  inet_ntoa(address.sin_addr), ntohs(address.sin_port)),
          "write");
}

/* Shows a request, with nothing in it that a terminal would obey. */
static void print_request(const char *request, size_t length)
{
    puts("----------------------------------------");
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)request[i];
        if (isprint(byte) || byte == '\t' || byte == '\n')
            putchar(byte);
        else if (byte != '\r')
            printf("\\x%02x", byte);
    }
    fflush(stdout);
}

/* Returns the length of the request, with the blank line that ends it, or 0 if
 * that has not come, or not among the first MAX_REQUEST bytes. */
static size_t find_end(const char *request, size_t length)
{
    for (size_t i = 1; i < length && i < MAX_REQUEST; i++)
        if (request[i] == '\n' &&
            (request[i - 1] == '\n' ||
             (request[i - 1] == '\r' && i > 1 && request[i - 2] == '\n')))
            return i + 1;
    return 0;
}

/* Tells whether a body may follow the request, which has a NUL after it: all
 * but a GET or HEAD may have one, and a NUL inside would hide its fields. */
static bool may_have_body(const char *request, size_t length)
{
    return (strncmp(request, "GET ", 4) != 0 &&
            strncmp(request, "HEAD ", 5) != 0) ||
           strlen(request) < length ||
           strcasestr(request, "\nContent-Length") != NULL ||
           strcasestr(request, "\nTransfer-Encoding") != NULL;
}

/* ---- The connection, and what is done with it. ---- */

enum { MAX_DESCRIPTORS = 65536, MAX_EVENTS = 64, MAX_STEPS = 16 };

/* READING until the request is whole, WRITING until the response is out; then,
 * if more may come, half-closed and CLOSING until the client closes. */
enum state { CLOSED, READING, WRITING, CLOSING };

struct connection {
    enum state state;
    bool ready;         /* no call has said EAGAIN since the last event */
    bool more_may_come; /* after the request */
    char *request;
    size_t length; /* bytes of the request that have come */
    const char *response;
    size_t unsent;    /* bytes of the response */
    const char *body; /* to be sent after it, or NULL */
    bool keep_alive, corked;
    unsigned responses; /* that have been sent */
    time_t since;       /* when it came into its state, or 0 */
};

static struct connection connections[MAX_DESCRIPTORS]; /* by descriptor */
static bool paused; /* accept() has failed: it is tried again after a wait */
static int epoll;
static bool newcomers; /* what `ready` is, for the listening socket */

static const char *mode = "plain"; /* or "cork", or "nodelay" */

/* Lets no descriptor be too high for the table. */
static void limit_descriptors(void)
{
    struct rlimit limit;
    check(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
    limit.rlim_cur =
        limit.rlim_max < MAX_DESCRIPTORS ? limit.rlim_max : MAX_DESCRIPTORS;
    check(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}

/* Tells epoll which events to report of a descriptor. */
static int watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    return epoll_ctl(epoll, operation, fd, &event);
}

/* Says what TCP made of the responses: TCP_INFO, tcp(7). */
static void report_segments(int client)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    shutdown(client, SHUT_WR); /* nothing is held back now */
    if (getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &size) == -1)
        return;
    printf("closed after %u responses in %u data segments (%s)\n",
           connections[client].responses, info.tcpi_data_segs_out, mode);
    fflush(stdout);
}

/* Closes the socket, and forgets the connection. */
static void close_connection(int client)
{
    report_segments(client);
    close(client);
    free(connections[client].request);
    connections[client] = (struct connection){.state = CLOSED};
}

/* Returns the time, in seconds. */
static time_t seconds(void)
{
    struct timespec clock;
    check(clock_gettime(CLOCK_MONOTONIC, &clock), "clock_gettime");
    return clock.tv_sec;
}

/* Enters a state. The time of a connection, IDLE_SECONDS, begins anew. */
static void enter_state(int client, enum state state)
{
    connections[client].state = state;
    connections[client].since = seconds();
}

/* Tells whether a call has moved no bytes: 0, for the client has closed, or -1.
 * That ends this connection, and no other, but for EAGAIN and EINTR. */
static bool handle_failure(int client, ssize_t result)
{
    if (result > 0)
        return false;
    if (result == -1 && errno == EAGAIN)
        connections[client].ready = false;
    else if (result == 0 || errno != EINTR)
        close_connection(client);
    return true;
}

/* Takes a client from the backlog. If there is no room, says so, once: clients
 * then wait there until somebody leaves, or a second has passed. */
static void accept_connection(int listener)
{
    static bool said;
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    newcomers = client != -1 || errno == EINTR || errno == ECONNABORTED;
    paused = !newcomers && errno != EAGAIN;
    if (paused && !said)
        fprintf(stderr, NAME ": accept: %s\n", strerror(errno));
    said |= paused;
    if (client == -1)
        return;
    enter_state(client, READING);
    if (watch(EPOLL_CTL_ADD, client, EPOLLIN | EPOLLOUT | EPOLLET) == -1)
        close_connection(client);
}

/* Puts the cork in, so that TCP sends full segments only, or takes it out. */
static void set_cork(int client, int on)
{
    if (strcmp(mode, "cork") != 0 || connections[client].corked == on)
        return;
    connections[client].corked = on;
    if (setsockopt(client, IPPROTO_TCP, TCP_CORK, &on, sizeof on) == -1)
        close_connection(client);
}

/* Tells whether the client keeps the connection open: RFC 9112, section 9.3. */
static bool is_persistent(const char *request)
{
    size_t line = strcspn(request, "\r\n");
    if (line < 9 || strncmp(request + line - 9, " HTTP/1.1", 9) != 0)
        return false;
    const char *field = request;
    while ((field = strcasestr(field, "\nConnection:")) != NULL) {
        field++;
        const char *word = strcasestr(field, "close");
        if (word != NULL && word < strchr(field, '\n'))
            return false;
    }
    return true;
}

/* Chooses the response to the first request in hand, once that is whole. What
 * came after it is then the first. */
static void answer_request(int client)
{
    struct connection *connection = &connections[client];
    char *request = connection->request;
    size_t end = find_end(request, connection->length);
    if (end == 0 && connection->length < MAX_REQUEST)
        return;
    char after_end = request[end];
    request[end] = '\0';
    bool last = end == 0 || may_have_body(request, end);
    connection->more_may_come |= last;
    connection->keep_alive = !last && is_persistent(request);
    if (end > 0)
        print_request(request, end);
    connection->response = end > 0 ? last_head : too_large;
    if (connection->keep_alive)
        connection->response = head;
    connection->body =
        end == 0 || strncmp(request, "HEAD ", 5) == 0 ? NULL : hello;
    connection->unsent = strlen(connection->response);
    request[end] = after_end;
    connection->length -= end;
    memmove(request, request + end, connection->length);
    enter_state(client, WRITING);
    set_cork(client, 1);
}

/* Reads a piece of the request, or of several. */
static void read_request(int client)
{
    struct connection *connection = &connections[client];
    size_t length = connection->length;
    char *request = realloc(connection->request, length + PIECE_SIZE + 1);
    if (request == NULL) {
        close_connection(client);
        return;
    }
    connection->request = request;
    ssize_t received = recv(client, request + length, PIECE_SIZE, 0);
    if (handle_failure(client, received))
        return;
    connection->length += (size_t)received;
    connection->more_may_come = received == PIECE_SIZE;
    answer_request(client);
}

/* Sends what there is room for. After the last byte, closes or half-closes. */
static void write_response(int client)
{
    struct connection *connection = &connections[client];
    ssize_t sent = send(client, connection->response, connection->unsent, 0);
    if (handle_failure(client, sent))
        return;
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
    if (connection->keep_alive) {
        enter_state(client, READING);
        answer_request(client);
        return;
    }
    enter_state(client, CLOSING);
    if (connection->more_may_come || connection->length > 0)
        shutdown(client, SHUT_WR);
    else
        close_connection(client);
}

/* Throws away a piece of what comes after the request. To close with bytes
 * unread would reset the connection, and the response could be lost. */
static void discard_rest(int client)
{
    char piece[PIECE_SIZE];
    handle_failure(client, recv(client, piece, PIECE_SIZE, 0));
}

/* Goes on with a client until a call says EAGAIN. One that is always quicker
 * has MAX_STEPS; then epoll is asked to report it again, after the others. */
static void advance(int client)
{
    struct connection *connection = &connections[client];
    connection->ready = true;
    for (int step = 0; connection->ready && step < MAX_STEPS; step++)
        if (connection->state == READING)
            read_request(client);
        else if (connection->state == WRITING)
            write_response(client);
        else if (connection->state == CLOSING)
            discard_rest(client);
    if (connection->state == READING && !connection->ready)
        set_cork(client, 0); /* all that came has been answered */
    if (connection->ready &&
        watch(EPOLL_CTL_MOD, client, EPOLLIN | EPOLLOUT | EPOLLET) == -1)
        close_connection(client);
}

/* Closes who is out of time. Looks once a second at most. (A request may have
 * come and not be read: if the program was stopped, or its console blocked.) */
static void close_overdue(time_t now)
{
    static time_t last_look;
    if (now == last_look)
        return;
    last_look = now;
    for (int client = 0; client < MAX_DESCRIPTORS; client++) {
        time_t since = connections[client].since;
        if (since == 0 || now - since <= IDLE_SECONDS)
            continue;
        advance(client);
        if (connections[client].since == since)
            close_connection(client);
    }
}

/* Takes --cork and --nodelay out of the command line. Returns what is left. */
static int parse_mode(int argc, char *argv[])
{
    int left = 1;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--cork") != 0 && strcmp(argv[i], "--nodelay") != 0)
            argv[left++] = argv[i];
        else if (strcmp(mode, "plain") != 0)
            fail_usage("one such option too many", argv[i]);
        else
            mode = argv[i] + 2;
    return left;
}

int main(int argc, char *argv[])
{
    argc = parse_mode(argc, argv);
    check(signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -1 : 0, "signal"); /* EPIPE */
    limit_descriptors();
    int listener = open_listener(parse_arguments(argc, argv));
    int on = 1; /* for connections too: they inherit it */
    if (strcmp(mode, "nodelay") == 0)
        check(setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on),
              "setsockopt");
    check(fcntl(listener, F_SETFL, O_NONBLOCK), "fcntl");
    epoll = check(epoll_create1(0), "epoll_create1");
    check(watch(EPOLL_CTL_ADD, listener, EPOLLIN | EPOLLET), "epoll_ctl");
    announce(listener);

    for (;;) {
        struct epoll_event events[MAX_EVENTS];
        int limit_ms = newcomers ? 0 : paused ? 1000 : IDLE_SECONDS * 1000;
        int count = epoll_wait(epoll, events, MAX_EVENTS, limit_ms);
        if (count == -1 && errno == EINTR)
            continue;
        check(count, "epoll_wait");
        time_t now = seconds(); /* before a console that may take its time */

        newcomers |= paused;
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                newcomers = true;
            else if (events[i].events != EPOLLOUT || connections[fd].request)
                advance(fd); /* room alone is no news of one who said nothing */
        }
        close_overdue(now);
        for (int step = 0; newcomers && step < MAX_STEPS; step++)
            accept_connection(listener);
    }
}
