/* upper_client: says what is typed to upper_server, and shows its replies.
 *
 * A stream has no borders: what was sent at once can come back in pieces. The
 * reply is over when as many bytes have come as were sent.
 *
 * Try: ./upper_client     while ./upper_server runs in another terminal
 */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME "upper_client"
#define USAGE "usage: " NAME " [port [address]]\n"

enum { CHUNK_SIZE = 1024 }; /* bytes */

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

/* Says that the server has closed the connection, and ends the program. */
static void fail_server(void)
{
    putchar('\n'); /* behind the prompt */
    fflush(stdout);
    fputs(NAME ": the server went away\n", stderr);
    exit(EXIT_FAILURE);
}

/* Shows the prompt, and waits for input. The server speaks only when it is
 * spoken to, so if it is the socket that becomes readable, it has closed. */
static void wait_for_input(int server)
{
    struct pollfd waits[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                             {.fd = server, .events = POLLIN}};
    printf("please input: ");
    fflush(stdout);
    while (poll(waits, 2, -1) == -1)
        check(errno == EINTR ? 0 : -1, "poll");
    if (waits[1].revents != 0)
        fail_server();
}

/* Sends the bytes, all of them. */
static void send_all(int server, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(server, bytes, length, MSG_NOSIGNAL);
        if (sent == -1 && (errno == EPIPE || errno == ECONNRESET))
            fail_server();
        if (sent == -1 && errno != EINTR)
            check(-1, "send");
        if (sent > 0) {
            bytes += sent;
            length -= (size_t)sent;
        }
    }
}

/* Shows a reply of so many bytes, in as many pieces as it comes. */
static void print_reply(int server, size_t length)
{
    char piece[CHUNK_SIZE];
    while (length > 0) {
        size_t room = length < sizeof piece ? length : sizeof piece;
        ssize_t received = recv(server, piece, room, 0);
        if (received == 0 || (received == -1 && errno == ECONNRESET))
            fail_server();
        if (received == -1 && errno != EINTR)
            check(-1, "recv");
        if (received > 0) {
            fwrite(piece, 1, (size_t)received, stdout);
            length -= (size_t)received;
        }
    }
}

int main(int argc, char *argv[])
{
    struct sockaddr_in address = parse_arguments(argc, argv);
    int server = check(socket(AF_INET, SOCK_STREAM, 0), "socket");
    check(connect(server, (struct sockaddr *)&address, sizeof address),
          "connect");

    /* Lines that stdin had read ahead would be hidden from poll(). */
    setvbuf(stdin, NULL, _IONBF, 0);
    char *line = NULL;
    size_t size = 0;
    for (;;) {
        wait_for_input(server);
        ssize_t length = getline(&line, &size, stdin);
        if (length > 0 && line[length - 1] == '\n')
            line[--length] = '\0';
        if (length == -1)
            putchar('\n'); /* behind the prompt */
        if (length == -1 || (length == 1 && line[0] == 'q'))
            break;
        /* The server reads no more while its reply waits: a line that is longer
         * than its chunk and all the buffers would block both sides. */
        for (ssize_t i = 0; i < length; i += CHUNK_SIZE) {
            size_t chunk =
                length - i < CHUNK_SIZE ? (size_t)(length - i) : CHUNK_SIZE;
            send_all(server, line + i, chunk);
            print_reply(server, chunk);
        }
        if (length > 0)
            putchar('\n');
    }
    free(line);
    check(close(server), "close");
    return EXIT_SUCCESS;
}
