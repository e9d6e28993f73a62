/* 06_tcp_options: when TCP sends.
 *
 * New since keep_alive: TCP_CORK and TCP_NODELAY. A response takes two send()
 * calls; the options decide how many segments they become. When a connection
 * closes, the server prints how many segments TCP sent for its responses.
 *
 * Try: ./06_tcp_options --cork     with the curl command of keep_alive
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h> /* the netinet/tcp.h of tcp(7) has an old tcp_info */
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

/* ---- The same in all stages, down to the next such line. ---- */

static const char too_large[] = "HTTP/1.0 431 Request Header Fields Too Large"
                                "\r\nContent-Length: 0\r\n\r\n";

enum { CHUNK_SIZE = 1024, MAX_REQUEST = 8192 }; /* bytes */

/* Returns a call's result. If the call failed, prints why and exits with 1. */
static int check(int result, const char *call)
{
    if (result != -1)
        return result;
    fprintf(stderr, NAME ": %s: %s\n", call, strerror(errno));
    exit(EXIT_FAILURE);
}

/* Prints what is wrong with the command line, and the usage. Exits with 2. */
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
    unsigned long port = strtoul(port_word, &end, 10); /* accepts " +80" too */
    if (!isdigit((unsigned char)*port_word) || *end != '\0' || port > 65535)
        fail_usage("not a port (0 to 65535) or option", port_word);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_port = htons((in_port_t)port);
    if (inet_pton(AF_INET, address_word, &address.sin_addr) != 1)
        fail_usage("not an IPv4 address", address_word);
    if (argc > 3)
        fail_usage("unexpected argument", argv[3]);
    return address;
}

/* Returns a socket that listens on the address. */
static int open_listener(struct sockaddr_in address)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) == -1) /* a socket would get this number */
            check(open("/dev/null", O_RDONLY), "open");
    int listener = check(socket(AF_INET, SOCK_STREAM, 0), "socket");
    int on = 1; /* without it, bind() fails while TIME-WAIT lasts */
    check(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on),
          "setsockopt");
    check(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    check(listen(listener, SOMAXCONN), "listen");
    return listener;
}

/* Prints the server's URL. (printf() would buffer it, and report no error.) */
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

/* Prints a request. Bytes that could control a terminal appear as \xNN. */
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

/* Returns the length of the request, including the blank line that ends it, or
 * 0 if the first MAX_REQUEST bytes hold no such line (yet). */
static size_t find_end(const char *request, size_t length)
{
    for (size_t i = 1; i < length && i < MAX_REQUEST; i++)
        if (request[i] == '\n' &&
            (request[i - 1] == '\n' ||
             (request[i - 1] == '\r' && i > 1 && request[i - 2] == '\n')))
            return i + 1;
    return 0;
}

/* Returns whether a body may follow the NUL-terminated request. (A NUL inside
 * the request would hide the header fields after it.) */
static bool may_have_body(const char *request, size_t length)
{
    return (strncmp(request, "GET ", 4) != 0 &&
            strncmp(request, "HEAD ", 5) != 0) ||
           memchr(request, '\0', length) != NULL ||
           strcasestr(request, "\nContent-Length") != NULL ||
           strcasestr(request, "\nTransfer-Encoding") != NULL;
}

/* ---- The connection, and what the server does with it. ---- */

enum { MAX_DESCRIPTORS = 65536, MAX_EVENTS = 64, MAX_STEPS = 16 };

/* READING until the request is complete, WRITING until the response is sent,
 * CLOSING (half-closed, only if more may come) until the client closes. */
enum state { CLOSED, READING, WRITING, CLOSING };

struct connection {
    enum state state;
    bool ready;           /* no EAGAIN since the last event */
    bool more_may_come;   /* after the request */
    bool keep_alive;      /* after the response */
    char *request;        /* the part received so far */
    size_t length;        /* of that part, in bytes */
    const char *response; /* the unsent part of the head, or of the body */
    const char *body;     /* to send after the head, or NULL */
    time_t deadline;      /* for leaving this state; see seconds() */
    unsigned responses;   /* sent so far */
};

static struct connection connections[MAX_DESCRIPTORS]; /* by descriptor */
static bool accept_paused; /* accept() failed: try again later */
static bool accept_ready;  /* more clients may be waiting: no EAGAIN yet */
static int epoll_fd;
static const char *mode = "plain"; /* or "cork", or "nodelay" */

/* Sets RLIMIT_NOFILE, so that every descriptor has an entry in the table. */
static void limit_descriptors(void)
{
    struct rlimit limit;
    check(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
    limit.rlim_cur =
        limit.rlim_max < MAX_DESCRIPTORS ? limit.rlim_max : MAX_DESCRIPTORS;
    check(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}

/* Sets the events that epoll reports for a descriptor. */
static int watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    return epoll_ctl(epoll_fd, operation, fd, &event);
}

/* Prints how many segments TCP has sent for the responses: TCP_INFO, tcp(7).
 * After shutdown() only a closed window delays bytes (the FIN is one). */
static void report_segments(int client)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    shutdown(client, SHUT_WR);
    if (getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &size) == -1)
        return;
    printf("closed after %u responses in %u data segments%s (%s)\n",
           connections[client].responses, info.tcpi_data_segs_out,
           info.tcpi_notsent_bytes > 1 ? " so far" : "", mode);
    fflush(stdout);
}

/* Closes the socket, and clears its entry: accept() may reuse the number. */
static void close_connection(int client)
{
    report_segments(client);
    close(client);
    free(connections[client].request);
    connections[client] = (struct connection){.state = CLOSED};
}

/* Returns the time, in seconds, on a clock that cannot be set. */
static time_t seconds(void)
{
    struct timespec now;
    check(clock_gettime(CLOCK_MONOTONIC, &now), "clock_gettime");
    return now.tv_sec;
}

/* Returns whether recv() or send() transferred bytes. EAGAIN ends readiness; a
 * close by the client, or any other error but EINTR, ends the connection. */
static bool check_transfer(int client, ssize_t result)
{
    if (result > 0)
        return true;
    if (result == -1 && errno == EAGAIN)
        connections[client].ready = false;
    else if (result == 0 || errno != EINTR)
        close_connection(client);
    return false;
}

/* Accepts a client. If accept() fails, prints why (only once). New clients then
 * wait in the backlog until another client leaves, or a second has passed. */
static void accept_connection(int listener)
{
    static bool reported;
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    accept_ready = client != -1 || errno == EINTR || errno == ECONNABORTED;
    accept_paused = !accept_ready && errno != EAGAIN;
    if (accept_paused && !reported)
        fprintf(stderr, NAME ": accept: %s\n", strerror(errno));
    reported |= accept_paused;
    if (client == -1)
        return;
    connections[client].state = READING;
    connections[client].deadline = seconds() + IDLE_SECONDS;
    if (watch(EPOLL_CTL_ADD, client, EPOLLIN | EPOLLOUT | EPOLLET) == -1)
        close_connection(client);
}

/* Corks the connection (TCP then sends only full segments), or uncorks it. */
static void set_cork(int client, int on)
{
    if (strcmp(mode, "cork") == 0 &&
        setsockopt(client, IPPROTO_TCP, TCP_CORK, &on, sizeof on) == -1)
        close_connection(client);
}

/* Returns whether the connection stays open: RFC 9112, 9.3 and 5.2. */
static bool is_persistent(const char *request)
{
    const char *at = request + strcspn(request, "\r\n");
    if (at < request + 9 || strncmp(at - 9, " HTTP/1.1", 9) != 0)
        return false;
    for (bool in_connection = false; *at != '\0'; at++) {
        if (at[0] == '\n' && at[1] != ' ' && at[1] != '\t')
            in_connection = strncasecmp(at + 1, "Connection", 10) == 0;
        if (in_connection && strncasecmp(at, "close", 5) == 0)
            return false;
    }
    return true;
}

/* Drops bytes from the front, and empty lines after them: RFC 9112, 2.2. */
static void drop_bytes(struct connection *connection, size_t count)
{
    char *request = connection->request;
    request[connection->length] = '\0';
    count += strspn(request + count, "\r\n");
    connection->length -= count;
    memmove(request, request + count, connection->length);
}

/* Chooses the response to the first request, if complete or too long. */
static void answer_request(int client)
{
    struct connection *connection = &connections[client];
    char *request = connection->request;
    size_t end = find_end(request, connection->length);
    if (end == 0 && connection->length < MAX_REQUEST)
        return;
    connection->keep_alive = false;
    connection->response = too_large;
    if (end > 0) {
        print_request(request, end);
        request[end - 1] = '\0'; /* a string; leaves the next request whole */
        bool last = may_have_body(request, end - 1);
        connection->more_may_come |= last;
        connection->keep_alive = !last && is_persistent(request);
        connection->response = connection->keep_alive ? head : last_head;
        connection->body = strncmp(request, "HEAD ", 5) == 0 ? NULL : hello;
        drop_bytes(connection, end);
    }
    connection->state = WRITING;
    connection->deadline = seconds() + IDLE_SECONDS;
}

/* Receives a chunk, which may hold several requests. */
static void read_request(int client)
{
    struct connection *connection = &connections[client];
    size_t length = connection->length;
    char *request = realloc(connection->request, length + CHUNK_SIZE + 1);
    if (request == NULL) {
        close_connection(client);
        return;
    }
    connection->request = request;
    ssize_t received = recv(client, request + length, CHUNK_SIZE, 0);
    if (!check_transfer(client, received))
        return;
    connection->length += (size_t)received;
    connection->more_may_come = received == CHUNK_SIZE;
    drop_bytes(connection, 0);
    answer_request(client);
    set_cork(client, 1);
}

/* Sends what fits. After the last byte, chooses the next state. */
static void write_response(int client)
{
    struct connection *connection = &connections[client];
    const char *response = connection->response;
    ssize_t sent = send(client, response, strlen(response), 0);
    if (!check_transfer(client, sent))
        return;
    connection->response += sent;
    if (*connection->response == '\0' && connection->body != NULL) {
        connection->response = connection->body;
        connection->body = NULL;
    }
    if (*connection->response != '\0')
        return;
    connection->responses++;
    connection->state = connection->keep_alive ? READING : CLOSING;
    connection->deadline = seconds() + IDLE_SECONDS;
    if (connection->keep_alive)
        answer_request(client);
    else if (connection->more_may_come || connection->length > 0)
        shutdown(client, SHUT_WR);
    else
        close_connection(client);
}

/* Discards a chunk of what follows the request. If bytes were left unread,
 * close() would reset the connection, and the response could be lost. */
static void discard_rest(int client)
{
    char chunk[CHUNK_SIZE];
    check_transfer(client, recv(client, chunk, CHUNK_SIZE, 0));
}

/* Serves a client until EAGAIN. A client that never causes EAGAIN gets
 * MAX_STEPS a turn; EPOLL_CTL_MOD then queues it behind the others. */
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
    if (connection->length == 0) { /* an idle connection needs no buffer */
        free(connection->request);
        connection->request = NULL;
    }
    if (connection->state == READING && !connection->ready)
        set_cork(client, 0); /* every complete request has been answered */
    if (connection->ready &&
        watch(EPOLL_CTL_MOD, client, EPOLLIN | EPOLLOUT | EPOLLET) == -1)
        close_connection(client);
}

/* Closes connections whose deadline has passed. Checks at most once a second.
 * (Before that, reads what came while the program was stopped or blocked.) */
static void close_overdue(time_t now)
{
    static time_t last_look;
    if (now == last_look)
        return;
    last_look = now;
    for (int client = 0; client < MAX_DESCRIPTORS; client++) {
        const struct connection *connection = &connections[client];
        if (connection->state != CLOSED && connection->deadline < now)
            advance(client);
        if (connection->state != CLOSED && connection->deadline < now)
            close_connection(client);
    }
}

int main(int argc, char *argv[])
{
    if (argc > 1 &&
        (strcmp(argv[1], "--cork") == 0 || strcmp(argv[1], "--nodelay") == 0)) {
        mode = argv[1] + 2;
        argc--;
        argv++;
    }
    signal(SIGPIPE, SIG_IGN); /* send() then fails with EPIPE instead */
    limit_descriptors();
    int listener = open_listener(parse_arguments(argc, argv));
    int on = 1; /* for the connections too: they inherit it */
    if (strcmp(mode, "nodelay") == 0)
        check(setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on),
              "setsockopt");
    check(fcntl(listener, F_SETFL, O_NONBLOCK), "fcntl");
    epoll_fd = check(epoll_create1(0), "epoll_create1");
    check(watch(EPOLL_CTL_ADD, listener, EPOLLIN | EPOLLET), "epoll_ctl");
    announce(listener);

    for (;;) {
        struct epoll_event events[MAX_EVENTS];
        int timeout = accept_ready ? 0 : accept_paused ? 1 : IDLE_SECONDS + 1;
        int count = epoll_wait(epoll_fd, events, MAX_EVENTS, timeout * 1000);
        if (count == -1 && errno == EINTR)
            continue;
        check(count, "epoll_wait");
        time_t now = seconds(); /* before the events: printing may block */

        accept_ready |= accept_paused;
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_ready = true;
            else if (events[i].events != EPOLLOUT || connections[fd].response)
                advance(fd); /* else EPOLLOUT alone: no request to read yet */
        }
        close_overdue(now);
        for (int step = 0; accept_ready && step < MAX_STEPS; step++)
            accept_connection(listener);
    }
}
