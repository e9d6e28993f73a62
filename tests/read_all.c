/* usage: read_all CONNECTION...
 *
 * Waits, 50 ms at most, until the other end of the connection on each of these
 * descriptors, a program on this machine, has accepted it and read all that was
 * sent, or has closed it. Fails where it has not.
 * (ss would look through every connection of the machine, 10 ms long.)
 */
#define _GNU_SOURCE

#include <err.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Returns the state of the kernel's socket with these two ends, if a byte of it
 * is unread or no program has accepted it, and otherwise 0. */
static int unread_state(int netlink, struct sockaddr_in here,
                        struct sockaddr_in there)
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 body;
    } request = {
        .head = {.nlmsg_len = sizeof request,
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = NLM_F_REQUEST},
        .body = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP}};
    struct inet_diag_sockid *id = &request.body.id;
    id->idiag_sport = there.sin_port;
    id->idiag_dport = here.sin_port;
    id->idiag_src[0] = there.sin_addr.s_addr;
    id->idiag_dst[0] = here.sin_addr.s_addr;
    memset(id->idiag_cookie, 0xff, sizeof id->idiag_cookie);
    union {
        struct nlmsghdr head;
        char bytes[8192]; // cppcheck-suppress unusedStructMember
    } reply;
    if (netlink == -1 || send(netlink, &request, sizeof request, 0) == -1 ||
        recv(netlink, &reply, sizeof reply, 0) == -1)
        err(EXIT_FAILURE, "netlink");
    const struct inet_diag_msg *socket = NLMSG_DATA(&reply.head);
    if (reply.head.nlmsg_type == NLMSG_ERROR ||
        socket->idiag_state == TCP_LISTEN)
        return 0; /* there is no such socket, but for the listening one */
    bool unread =
        socket->idiag_rqueue > 0 ||
        (socket->idiag_inode == 0 && (socket->idiag_state == TCP_ESTABLISHED ||
                                      socket->idiag_state == TCP_SYN_RECV));
    return unread ? socket->idiag_state : 0;
}

int main(int argc, char *argv[])
{
    struct sockaddr_in here, there;
    socklen_t size = sizeof here;
    int unsent, state, looks = 0;
    int netlink = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG);
    for (int i = 1; i < argc; i++) {
        int fd = (int)strtol(argv[i], NULL, 10);
        for (;; usleep(1000)) {
            if (getsockname(fd, (struct sockaddr *)&here, &size) == -1 ||
                getpeername(fd, (struct sockaddr *)&there, &size) == -1) {
                if (errno == EBADF)
                    err(EXIT_FAILURE, "%d", fd);
                break; /* it has been reset */
            }
            bool sent = ioctl(fd, SIOCOUTQ, &unsent) == 0 && unsent == 0;
            state = sent ? unread_state(netlink, here, there) : TCP_ESTABLISHED;
            if (state == 0)
                break;
            if (++looks >= 50 && state == TCP_SYN_RECV)
                break; /* with TCP_DEFER_ACCEPT, a silent client stays so */
            if (looks >= 50)
                return EXIT_FAILURE;
        }
    }
    return EXIT_SUCCESS;
}
