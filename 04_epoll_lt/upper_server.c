/* upper_server: a conversation, on connections that stay open.
 *
 * A client gets its bytes back in capitals. The server keeps one chunk of them,
 * and waits in turn for EPOLLIN (bytes to read) and EPOLLOUT (room to write).
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME "upper_server"
#define USAGE "usage: " NAME " [port [address]]\n"

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
    const char *port_word = argc > 1 ? argv[1] : "1688";
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

/* Prints where the server listens. (printf() would only buffer it.) */
static void announce(int listener)
{
    struct sockaddr_in address = {0};
    socklen_t size = sizeof address;
    check(getsockname(listener, (struct sockaddr *)&address, &size),
          "getsockname");
    check(dprintf(STDOUT_FILENO, "listening on %s:%d\n",
                  inet_ntoa(address.sin_addr), ntohs(address.sin_port)),
          "write");
}

enum { MAX_DESCRIPTORS = 65536, MAX_EVENTS = 64, CHUNK_SIZE = 1024 };

struct connection {
    char chunk[CHUNK_SIZE];
    size_t length, sent; /* of the chunk, in bytes */
};

static struct connection connections[MAX_DESCRIPTORS]; /* by descriptor */
static bool accept_paused; /* accept() failed: try again later */
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

/* Returns whether recv() or send() transferred bytes. Closes the connection if
 * the client has closed it, or on any error other than EAGAIN and EINTR. */
static bool check_transfer(int client, ssize_t result)
{
    if (result > 0)
        return true;
    if (result == 0 || (errno != EAGAIN && errno != EINTR))
        close(client);
    return false;
}

/* Accepts a client. If accept() fails, prints why (only once). New clients then
 * wait in the backlog until another client leaves, or a second has passed. */
static void accept_connection(int listener)
{
    static bool reported;
    bool was_paused = accept_paused;
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    accept_paused = client == -1 && errno != EAGAIN && errno != EINTR &&
                    errno != ECONNABORTED;
    if (accept_paused && !reported)
        fprintf(stderr, NAME ": accept: %s\n", strerror(errno));
    reported |= accept_paused;
    /* During a pause, epoll would keep reporting the clients in the backlog. */
    if (accept_paused != was_paused &&
        watch(EPOLL_CTL_MOD, listener, accept_paused ? 0 : EPOLLIN) == -1)
        accept_paused = was_paused;
    if (client == -1)
        return;
    connections[client].length = connections[client].sent = 0;
    if (watch(EPOLL_CTL_ADD, client, EPOLLIN) == -1)
        close(client);
}

/* Prints an event. */
static void print_event(int fd, uint32_t events)
{
    printf("fd %d:%s%s%s%s\n", fd, events & EPOLLIN ? " EPOLLIN" : "",
           events & EPOLLOUT ? " EPOLLOUT" : "",
           events & EPOLLERR ? " EPOLLERR" : "",
           events & EPOLLHUP ? " EPOLLHUP" : "");
    fflush(stdout);
}

/* Receives a chunk, capitalizes it, and watches for room to send it. */
static void read_chunk(int client)
{
    struct connection *connection = &connections[client];
    ssize_t received = recv(client, connection->chunk, CHUNK_SIZE, 0);
    if (!check_transfer(client, received))
        return;
    connection->length = (size_t)received;
    connection->sent = 0;
    for (char *letter = connection->chunk; received-- > 0; letter++)
        *letter = (char)toupper((unsigned char)*letter);
    if (watch(EPOLL_CTL_MOD, client, EPOLLOUT) == -1)
        close(client);
}

/* Sends what fits. After the last byte, watches for more to read. */
static void write_chunk(int client)
{
    struct connection *connection = &connections[client];
    ssize_t sent = send(client, connection->chunk + connection->sent,
                        connection->length - connection->sent, 0);
    if (!check_transfer(client, sent))
        return;
    connection->sent += (size_t)sent;
    if (connection->sent == connection->length &&
        watch(EPOLL_CTL_MOD, client, EPOLLIN) == -1)
        close(client);
}

int main(int argc, char *argv[])
{
    signal(SIGPIPE, SIG_IGN); /* send() then fails with EPIPE instead */
    limit_descriptors();
    int listener = open_listener(parse_arguments(argc, argv));
    check(fcntl(listener, F_SETFL, O_NONBLOCK), "fcntl");
    epoll_fd = check(epoll_create1(0), "epoll_create1");
    check(watch(EPOLL_CTL_ADD, listener, EPOLLIN), "epoll_ctl");
    announce(listener);
    for (;;) {
        struct epoll_event events[MAX_EVENTS];
        int timeout_ms = accept_paused ? 1000 : -1;
        int count = epoll_wait(epoll_fd, events, MAX_EVENTS, timeout_ms);
        if (count == -1 && errno == EINTR)
            continue;
        check(count, "epoll_wait");
        bool accept_ready = accept_paused;
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            print_event(fd, events[i].events);
            if (fd == listener)
                accept_ready = true;
            else if (connections[fd].sent < connections[fd].length)
                write_chunk(fd);
            else
                read_chunk(fd);
        }
        if (accept_ready)
            accept_connection(listener);
    }
}
