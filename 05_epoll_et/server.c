/* 05_epoll_et: each change is reported once.
 *
 * New since 04_epoll_lt: EPOLLET. epoll reports that a socket has become ready,
 * not that it still is. Events never change; the server goes on until EAGAIN.
 *
 * Try: strace -e /epoll ./05_epoll_et
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME "05_epoll_et"
#define USAGE "usage: " NAME " [port [address]]\n"

/* HEAD gets the body too, as in the tutorial. 06 obeys RFC 9110, 9.3.2. */
static const char hello[] =
    "HTTP/1.0 200 OK\r\nDate: Mon, 1 Jan 1996 01:01:01 GMT\r\n"
    "Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";

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
    char *request;        /* the part received so far */
    size_t length;        /* of that part, in bytes */
    const char *response; /* the part still to be sent */
};

static struct connection connections[MAX_DESCRIPTORS]; /* by descriptor */
static bool accept_paused; /* accept() failed: try again later */
static bool accept_ready;  /* more clients may be waiting: no EAGAIN yet */
static int epoll_fd;

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

/* Closes the socket, and clears its entry: accept() may reuse the number. */
static void close_connection(int client)
{
    close(client);
    free(connections[client].request);
    connections[client] = (struct connection){.state = CLOSED};
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
    if (watch(EPOLL_CTL_ADD, client, EPOLLIN | EPOLLOUT | EPOLLET) == -1)
        close_connection(client);
}

/* Receives a chunk. If that completes the request, chooses the response. */
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
    length += (size_t)received;
    connection->length = length;
    size_t end = find_end(request, length);
    if (end == 0 && length < MAX_REQUEST)
        return;
    request[end] = '\0';
    connection->more_may_come =
        end < length || received == CHUNK_SIZE || may_have_body(request, end);
    if (end > 0)
        print_request(request, end);
    connection->response = end > 0 ? hello : too_large;
    connection->state = WRITING;
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
    if (*connection->response != '\0')
        return;
    connection->state = CLOSING;
    if (connection->more_may_come)
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
    if (connection->ready &&
        watch(EPOLL_CTL_MOD, client, EPOLLIN | EPOLLOUT | EPOLLET) == -1)
        close_connection(client);
}

int main(int argc, char *argv[])
{
    signal(SIGPIPE, SIG_IGN); /* send() then fails with EPIPE instead */
    limit_descriptors();
    int listener = open_listener(parse_arguments(argc, argv));
    check(fcntl(listener, F_SETFL, O_NONBLOCK), "fcntl");
    epoll_fd = check(epoll_create1(0), "epoll_create1");
    check(watch(EPOLL_CTL_ADD, listener, EPOLLIN | EPOLLET), "epoll_ctl");
    announce(listener);

    for (;;) {
        struct epoll_event events[MAX_EVENTS];
        int timeout_ms = accept_ready ? 0 : accept_paused ? 1000 : -1;
        int count = epoll_wait(epoll_fd, events, MAX_EVENTS, timeout_ms);
        if (count == -1 && errno == EINTR)
            continue;
        check(count, "epoll_wait");

        accept_ready |= accept_paused;
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_ready = true;
            else if (events[i].events != EPOLLOUT || connections[fd].response)
                advance(fd); /* else EPOLLOUT alone: no request to read yet */
        }
        for (int step = 0; accept_ready && step < MAX_STEPS; step++)
            accept_connection(listener);
    }
}
