/* upper_client: sends typed lines to upper_server, and prints the replies.
 *
 * A stream has no message boundaries: the reply to one send() can arrive in
 * pieces. It is complete when as many bytes have arrived as were sent.
 *
 * Try: ./upper_client     while ./upper_server runs in another terminal
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME "upper_client"
#define USAGE "usage: " NAME " [port [address]]\n"

enum { CHUNK_SIZE = 1024 }; /* bytes */

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

/* Reports that the server closed the connection, and exits with 1. */
static void fail_server(void)
{
    fputs("\n" NAME ": the server went away\n", stderr); /* after the prompt */
    exit(EXIT_FAILURE);
}

/* Sends a line and prints the reply, in chunks: else both sides could block. */
static void converse(int server, const char *line, size_t length)
{
    char chunk[CHUNK_SIZE];
    while (length > 0) {
        size_t size = length < CHUNK_SIZE ? length : CHUNK_SIZE;
        ssize_t owed = send(server, line, size, MSG_NOSIGNAL);
        if (owed == -1)
            fail_server();
        line += owed;
        length -= (size_t)owed;
        while (owed > 0) {
            ssize_t received = recv(server, chunk, (size_t)owed, 0);
            if (received <= 0)
                fail_server();
            fwrite(chunk, 1, (size_t)received, stdout);
            owed -= received;
        }
    }
    putchar('\n');
}

int main(int argc, char *argv[])
{
    struct sockaddr_in address = parse_arguments(argc, argv);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) == -1) /* a socket would get this number */
            check(open("/dev/null", O_RDONLY), "open");
    int server = check(socket(AF_INET, SOCK_STREAM, 0), "socket");
    check(connect(server, (struct sockaddr *)&address, sizeof address),
          "connect");
    setvbuf(stdin, NULL, _IONBF, 0); /* poll() cannot see stdio's buffer */
    setvbuf(stdout, NULL, _IONBF, 0);
    struct pollfd waits[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                             {.fd = server, .events = POLLIN}};
    static char *line = NULL;
    size_t size = 0;
    for (;;) {
        fputs("please input: ", stdout);
        check(poll(waits, 2, -1), "poll");
        if (waits[1].revents != 0) /* the server closed, or said more */
            fail_server();
        ssize_t length = getline(&line, &size, stdin);
        if (length > 0 && line[length - 1] == '\n')
            length--;
        if (length == -1)
            putchar('\n'); /* after the prompt */
        if (length == -1 || (length == 1 && *line == 'q'))
            return EXIT_SUCCESS;
        if (length > 0)
            converse(server, line, (size_t)length);
    }
}
