/* 03_select: many clients at once.
 *
 * New since 02_blocking_loop: its loops turned inside out. No call on a socket
 * waits, so what stood on the stack between two calls stands in a struct.
 * select() alone waits, for all, and tells who can go a step further.
 *
 * Try: nc 127.0.0.1 8080     and, while it waits, curl in a second terminal
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
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME "03_select"
#define USAGE "usage: " NAME " [port [address]]\n"

static const char hello[] =
    "HTTP/1.0 200 OK\r\nDate: Mon, 1 Jan 1996 01:01:01 GMT\r\n"
    "Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";

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

enum { MAX_DESCRIPTORS = FD_SETSIZE }; /* select() waits for no higher ones */

/* READING until the request is whole, WRITING until the response is out; then,
 * if more may come, half-closed and CLOSING until the client closes. */
enum state { CLOSED, READING, WRITING, CLOSING };

struct connection {
    enum state state;
    bool more_may_come; /* after the request */
    char *request;
    size_t length; /* bytes of the request that have come */
    const char *response;
    size_t unsent; /* bytes of the response */
};

static struct connection connections[MAX_DESCRIPTORS]; /* by descriptor */
static bool paused; /* accept() has failed: it is tried again after a wait */

/* Lets no descriptor be too high for the table. */
static void limit_descriptors(void)
{
    struct rlimit limit;
    check(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
    limit.rlim_cur =
        limit.rlim_max < MAX_DESCRIPTORS ? limit.rlim_max : MAX_DESCRIPTORS;
    check(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}

/* Closes the socket, and forgets the connection. */
static void close_connection(int client)
{
    close(client);
    free(connections[client].request);
    connections[client] = (struct connection){.state = CLOSED};
}

/* Tells whether a call has moved no bytes: 0, for the client has closed, or -1.
 * That ends this connection, and no other, but for EAGAIN and EINTR. */
static bool handle_failure(int client, ssize_t result)
{
    if (result > 0)
        return false;
    if (result == 0 || (errno != EAGAIN && errno != EINTR))
        close_connection(client);
    return true;
}

/* Takes a client from the backlog. If there is no room, says so, once: clients
 * then wait there until somebody leaves, or a second has passed. */
static void accept_connection(int listener)
{
    static bool said;
    int client = accept(listener, NULL, NULL);
    paused = client == -1 && errno != EAGAIN && errno != EINTR &&
             errno != ECONNABORTED;
    if (paused && !said)
        fprintf(stderr, NAME ": accept: %s\n", strerror(errno));
    said |= paused;
    if (client == -1)
        return;
    connections[client].state = READING;
    if (fcntl(client, F_SETFL, O_NONBLOCK) == -1)
        close_connection(client);
}

/* Reads a piece of the request. Once it is whole, chooses the response. */
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
    length += (size_t)received;
    connection->length = length;
    size_t end = find_end(request, length);
    if (end == 0 && length < MAX_REQUEST)
        return;
    request[end] = '\0';
    connection->more_may_come =
        end < length || received == PIECE_SIZE || may_have_body(request, end);
    if (end > 0)
        print_request(request, end);
    connection->response = end > 0 ? hello : too_large;
    connection->unsent = strlen(connection->response);
    connection->state = WRITING;
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
    connection->state = CLOSING;
    if (connection->more_may_come)
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

/* Goes a step further with a client: one recv() or one send(). */
static void advance(int client)
{
    if (connections[client].state == READING)
        read_request(client);
    else if (connections[client].state == WRITING)
        write_response(client);
    else if (connections[client].state == CLOSING)
        discard_rest(client);
}

int main(int argc, char *argv[])
{
    check(signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -1 : 0, "signal"); /* EPIPE */
    limit_descriptors();
    int listener = open_listener(parse_arguments(argc, argv));
    check(fcntl(listener, F_SETFL, O_NONBLOCK), "fcntl");
    announce(listener);

    for (;;) {
        fd_set readable, writable; /* question and answer, so made anew */
        FD_ZERO(&readable);
        FD_ZERO(&writable);
        if (!paused)
            FD_SET(listener, &readable);
        for (int client = 0; client < MAX_DESCRIPTORS; client++)
            if (connections[client].state == WRITING)
                FD_SET(client, &writable);
            else if (connections[client].state != CLOSED)
                FD_SET(client, &readable);

        struct timeval second = {.tv_sec = 1};
        int count = select(MAX_DESCRIPTORS, &readable, &writable, NULL,
                           paused ? &second : NULL);
        if (count == -1 && errno == EINTR)
            continue;
        check(count, "select");

        /* advance() passes the listener over: in the table it is CLOSED. */
        for (int client = 0; client < MAX_DESCRIPTORS; client++)
            if (FD_ISSET(client, &readable) || FD_ISSET(client, &writable))
                advance(client);
        if (paused || FD_ISSET(listener, &readable))
            accept_connection(listener);
    }
}
