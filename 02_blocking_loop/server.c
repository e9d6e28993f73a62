/* 02_blocking_loop: clients one after another.
 *
 * New since 01_blocking: a loop around accept. The listening socket never
 * carries data: each client has its own socket. A slow client delays the rest.
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
#include <sys/socket.h>
#include <unistd.h>

#define NAME "02_blocking_loop"
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

/* Reads until the request is complete or too long. Returns the response, or
 * NULL if the client leaves first. Stores whether more bytes may follow. */
static const char *read_request(int client, bool *more_may_come)
{
    char request[MAX_REQUEST + CHUNK_SIZE];
    size_t length = 0, end = 0;
    ssize_t received = 0;
    while (end == 0 && length < MAX_REQUEST) {
        received = recv(client, request + length, CHUNK_SIZE, 0);
        if (received <= 0)
            return NULL;
        length += (size_t)received;
        end = find_end(request, length);
    }
    request[end] = '\0';
    *more_may_come =
        end < length || received == CHUNK_SIZE || may_have_body(request, end);
    if (end > 0)
        print_request(request, end);
    return end > 0 ? hello : too_large;
}

/* Sends the whole response. Returns false if send() failed. */
static bool write_response(int client, const char *response)
{
    while (*response != '\0') {
        ssize_t sent = send(client, response, strlen(response), 0);
        if (sent == -1)
            return false;
        response += sent;
    }
    return true;
}

/* Half-closes, and reads until the client closes. If bytes were left unread,
 * close() would reset the connection, and the response could be lost. */
static void discard_rest(int client)
{
    char chunk[CHUNK_SIZE];
    shutdown(client, SHUT_WR);
    while (recv(client, chunk, CHUNK_SIZE, 0) > 0)
        ; /* discarded */
}

/* Serves a client and closes its socket. Returns whether it sent a response. */
static bool serve(int client)
{
    bool more_may_come;
    const char *response = read_request(client, &more_may_come);
    bool answered = response != NULL && write_response(client, response);
    if (answered && more_may_come)
        discard_rest(client);
    close(client);
    return answered;
}

int main(int argc, char *argv[])
{
    signal(SIGPIPE, SIG_IGN); /* send() then fails with EPIPE instead */
    int listener = open_listener(parse_arguments(argc, argv));
    announce(listener);

    bool reported = false;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client != -1) {
            serve(client);
        } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            if (!reported)
                fprintf(stderr, NAME ": accept: %s\n", strerror(errno));
            reported = true;
            sleep(1); /* accept() would fail again at once */
        }
    }
}
