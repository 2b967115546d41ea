/* What a relay is measured against, and with: the least forwarder, and a generator that is its own sink.
 *
 * usage: relay_pair forward PORT TO
 *        relay_pair load SINK TO FLOWS SECONDS RATE WINDOW FIRST HEAD
 *
 * forward: datagrams of PORT go to TO, 64 at a time by recvmmsg and sendmmsg, nothing read or added; ends by SIGTERM.
 * load:    FLOWS sockets send RTP-shaped datagrams of 160 bytes to TO, bursts of 8 a flow (UDP_SEGMENT, so that
 *          sending is no limit); what arrives at SINK is counted. RATE is packets/s, given as one packet a flow in
 *          turn; 0 is as fast as WINDOW allows: so many may be under way, so that nothing is lost. FIRST is a file
 *          with what each flow sends at first, one by one, each when the one before was answered or arrived at SINK:
 *          a byte pair of length, then that; a length of 0 ends a flow's; - for nothing. HEAD stands before each
 *          datagram, in hexadecimal; - for nothing.
 * All on 127.0.0.1. Prints JSON at its end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { BATCH = 64, ROOM = 2048, SIZE = 160, HEAD_MOST = 16, BURST = 8, STAMP_AT = 16, QUIET_MS = 200, MOST = 4000000 };

static volatile sig_atomic_t ended;
static char slots[BATCH][ROOM];
static struct iovec iov[BATCH];
static struct mmsghdr messages[BATCH];
static uint32_t *delays;
static int64_t delivered, measured;

static void end(int number)
{
    (void)number;
    ended = 1;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int bound(int port)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 8 << 20;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at)) {
        perror("bind");
        exit(4);
    }
    return fd;
}

static void lay_out(void)
{
    for (int i = 0; i < BATCH; i++) {
        iov[i] = (struct iovec){slots[i], ROOM};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    }
}

static int forward(int port, int to)
{
    int fd = bound(port), out = bound(0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(to), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in from[BATCH];
    struct iovec sends[BATCH];
    struct mmsghdr going[BATCH];
    memset(going, 0, sizeof going);
    lay_out();
    for (int i = 0; i < BATCH; i++) {
        messages[i].msg_hdr.msg_name = &from[i];
        sends[i].iov_base = slots[i];
        going[i].msg_hdr = (struct msghdr){.msg_name = &at, .msg_namelen = sizeof at, .msg_iov = &sends[i], .msg_iovlen = 1};
    }
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    printf("ready\n");
    fflush(stdout);
    while (!ended) {
        for (int i = 0; i < BATCH; i++)
            messages[i].msg_hdr.msg_namelen = sizeof from[i];
        int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
        if (count <= 0) {
            struct pollfd wait = {fd, POLLIN, 0};
            poll(&wait, 1, 100);
            continue;
        }
        for (int i = 0; i < count; i++)
            sends[i].iov_len = messages[i].msg_len;
        for (int done = 0; done < count;) {
            int sent = sendmmsg(out, going + done, count - done, 0);
            if (sent < 0 && errno != EINTR)
                break;
            done += sent > 0 ? sent : 0;
        }
    }
    return 0;
}

/* Send what a flow sends at first; each must have been answered, or have come to the sink, before the next. */
static void begin(FILE *file, int flow, int out, int in)
{
    unsigned char length[2];
    while (fread(length, 1, 2, file) == 2 && (length[0] || length[1])) {
        char data[1500];
        size_t bytes = length[0] << 8 | length[1];
        struct pollfd wait[2] = {{in, POLLIN, 0}, {out, POLLIN, 0}};
        if (bytes > sizeof data || fread(data, 1, bytes, file) != bytes || send(out, data, bytes, 0) < 0)
            exit(4);
        if (poll(wait, 2, 2000) < 1) {
            fprintf(stderr, "nothing came of what flow %d sent at first\n", flow);
            exit(4);
        }
        recvmmsg(wait[0].revents ? in : out, messages, BATCH, MSG_DONTWAIT, NULL);
    }
}

/* Take what has arrived; the delay of each is from its stamp, which the generator wrote. */
static int drain(int fd)
{
    int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    int64_t now = now_ns();
    for (int i = 0; i < count; i++) {
        int64_t stamp;
        if (messages[i].msg_len < SIZE)
            continue;
        memcpy(&stamp, slots[i] + messages[i].msg_len - SIZE + STAMP_AT, sizeof stamp);
        if (slots[i][messages[i].msg_len - SIZE] != (char)0x80)
            continue; /* of those sent at first */
        delivered++;
        if (measured < MOST)
            delays[measured++] = (uint32_t)(now - stamp);
    }
    return count;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Bytes written in hexadecimal; returns how many. */
static int decoded(const char *text, char *bytes)
{
    int count = 0;
    unsigned int byte;
    while (count < HEAD_MOST && sscanf(text + 2 * count, "%2x", &byte) == 1)
        bytes[count++] = (char)byte;
    return count;
}

static int load(int sink, int to, int flows, double seconds, double rate, int window, const char *first, const char *hex)
{
    int in = bound(sink), *out = calloc(flows, sizeof *out);
    char before_each[HEAD_MOST];
    int head = decoded(hex, before_each), whole = SIZE + head;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(to), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static char burst[BURST * (SIZE + HEAD_MOST)];
    FILE *file = strcmp(first, "-") ? fopen(first, "rb") : NULL;
    delays = malloc(MOST * sizeof *delays);
    lay_out();
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    for (int i = 0; i < flows; i++) {
        out[i] = socket(AF_INET, SOCK_DGRAM, 0);
        if (out[i] < 0 || connect(out[i], (struct sockaddr *)&at, sizeof at)) {
            perror("connect");
            return 4;
        }
        if (file)
            begin(file, i, out[i], in);
    }
    for (int i = 0; i < BURST; i++) {
        memcpy(burst + i * whole, before_each, head);
        burst[i * whole + head] = (char)0x80;
    }
    int64_t sent = 0, start = now_ns(), until = start + (int64_t)(seconds * 1e9), last = start;
    double cpu = cpu_s();
    for (int flow = 0; now_ns() < until;) {
        int64_t now = now_ns();
        if (rate > 0) {
            int64_t due = (int64_t)((now - start) * rate / 1e9) + 1 - sent;
            for (int i = 0; i < due && i < BATCH; i++) {
                int64_t stamp = now_ns();
                memcpy(burst + head + STAMP_AT, &stamp, sizeof stamp);
                if (send(out[flow], burst, whole, 0) == whole)
                    sent++;
                flow = (flow + 1) % flows;
            }
            while (drain(in) == BATCH)
                ;
            if (due < 1) {
                struct timespec pause = {0, 20000};
                struct pollfd wait = {in, POLLIN, 0};
                ppoll(&wait, 1, &pause, NULL);
            }
            continue;
        }
        int64_t before = delivered;
        for (int i = 0; sent - delivered <= window - BURST && i < BATCH / BURST; i++) {
            for (int k = 0; k < BURST; k++)
                memcpy(burst + k * whole + head + STAMP_AT, &now, sizeof now);
            char control[CMSG_SPACE(sizeof(uint16_t))] = {0};
            struct iovec all = {burst, BURST * whole};
            struct msghdr message = {.msg_iov = &all, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
            struct cmsghdr *segment = CMSG_FIRSTHDR(&message);
            segment->cmsg_level = IPPROTO_UDP;
            segment->cmsg_type = UDP_SEGMENT;
            segment->cmsg_len = CMSG_LEN(sizeof(uint16_t));
            *(uint16_t *)CMSG_DATA(segment) = whole;
            if (sendmsg(out[flow], &message, 0) == BURST * whole)
                sent += BURST;
            flow = (flow + 1) % flows;
        }
        while (drain(in) == BATCH)
            ;
        if (delivered > before)
            last = now;
        else if (now - last > 50000000) { /* something was lost: the window would stay shut */
            window += (int)(sent - delivered);
            last = now;
        }
    }
    double took = (now_ns() - start) / 1e9;
    int64_t in_time = delivered;
    struct pollfd wait = {in, POLLIN, 0};
    while (poll(&wait, 1, QUIET_MS) > 0)
        drain(in);
    qsort(delays, measured, sizeof *delays, by_value);
    printf("{\"sent\": %lld, \"delivered\": %lld, \"lost\": %lld, \"pps\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
           "\"cpu_s\": %.4f, \"seconds\": %.4f}\n",
           (long long)sent, (long long)delivered, (long long)(sent - delivered), in_time / took,
           measured ? delays[measured / 2] / 1e3 : 0, measured ? delays[measured * 99 / 100] / 1e3 : 0, cpu_s() - cpu, took);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "forward"))
        return forward(atoi(argv[2]), atoi(argv[3]));
    if (argc == 10 && !strcmp(argv[1], "load"))
        return load(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atof(argv[5]), atof(argv[6]), atoi(argv[7]), argv[8], argv[9]);
    fprintf(stderr, "usage: %s forward PORT TO | load SINK TO FLOWS SECONDS RATE WINDOW FIRST HEAD\n", argv[0]);
    return 2;
}
