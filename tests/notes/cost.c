/* cost: what some system calls take that a server makes for nothing. */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TIMES = 20000 };

static int listener, connected, epoll;

static void accept_nobody(void)
{
    if (accept4(listener, NULL, NULL, SOCK_NONBLOCK) != -1)
        abort();
}

static void wait_for_nothing(void)
{
    struct epoll_event events[64];
    if (epoll_wait(epoll, events, 64, 0) != 0)
        abort();
}

static void receive_nothing(void)
{
    char piece[1024];
    if (recv(connected, piece, sizeof piece, 0) != -1)
        abort();
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void measure(const char *what, void (*call)(void))
{
    double begin = now_us();
    for (int i = 0; i < TIMES; i++)
        call();
    printf("%-28s %5.2f us\n", what, (now_us() - begin) / TIMES);
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    if (bind(listener, (struct sockaddr *)&address, size) == -1 ||
        listen(listener, 1) == -1 ||
        getsockname(listener, (struct sockaddr *)&address, &size) == -1 ||
        connect(client, (struct sockaddr *)&address, size) == -1 ||
        (connected = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) == -1 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, connected, &event) == -1) {
        perror("cost");
        return EXIT_FAILURE;
    }
    measure("accept4 of nobody", accept_nobody);
    measure("epoll_wait, nothing ready", wait_for_nothing);
    measure("recv, nothing there", receive_nothing);
    return EXIT_SUCCESS;
}
