/* The least a program can do to send probe-sized IPv6-in-IPv6 packets: one sendmmsg of 64 after the other.
 *
 * usage: sendmmsg_probe raw41|header SOURCE SIZE COUNT RATE DESTINATION...
 *
 * raw41:  socket of protocol 41, the kernel writes the outer header.
 * header: socket of protocol 255 (IPPROTO_RAW), the packet holds its outer header.
 * SIZE is the whole packet; RATE is packets/s in batches of what is due, 0 is as fast as possible. Each packet gets its
 * sequence number; destinations take turns. Prints packets, seconds and processor seconds as JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, OUTER = 40, COALESCE_NS = 250000, COALESCE_DENSE_NS = 800000, DENSE = 20000 };

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void ipv6_header(uint8_t *at, int payload, int next, const uint8_t *source, const uint8_t *destination)
{
    at[0] = 0x60;
    at[4] = payload >> 8;
    at[5] = payload & 255;
    at[6] = next;
    at[7] = 64;
    memcpy(at + 8, source, 16);
    memcpy(at + 24, destination, 16);
}

int main(int argc, char **argv)
{
    if (argc < 7) {
        fprintf(stderr, "usage: %s raw41|header SOURCE SIZE COUNT RATE DESTINATION...\n", argv[0]);
        return 2;
    }
    int header = !strcmp(argv[1], "header"), size = atoi(argv[3]), destinations = argc - 6;
    int64_t count = atoll(argv[4]);
    double rate = atof(argv[5]);
    int length = header ? size : size - OUTER, inner_at = header ? OUTER : 0;
    uint8_t source[16];
    struct sockaddr_in6 *to = calloc(destinations, sizeof *to);
    inet_pton(AF_INET6, argv[2], source);
    for (int i = 0; i < destinations; i++) {
        to[i].sin6_family = AF_INET6;
        inet_pton(AF_INET6, argv[6 + i], &to[i].sin6_addr);
    }
    int fd = socket(AF_INET6, SOCK_RAW, header ? IPPROTO_RAW : 41);
    if (fd < 0) {
        perror("socket");
        return 4;
    }
    int buffer = 8 << 20;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);

    uint8_t *packets = calloc(BATCH, length);
    struct iovec iov[BATCH];
    struct mmsghdr messages[BATCH];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BATCH; i++) {
        uint8_t *packet = packets + (size_t)i * length, *inner = packet + inner_at;
        ipv6_header(inner, size - 2 * OUTER, 17, source, (uint8_t *)&to[0].sin6_addr);
        inner[42] = 862 >> 8;
        inner[43] = 862 & 255;
        inner[44] = (size - 2 * OUTER) >> 8;
        inner[45] = (size - 2 * OUTER) & 255;
        iov[i].iov_base = packet;
        iov[i].iov_len = length;
        messages[i].msg_hdr.msg_iov = &iov[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_namelen = sizeof *to;
    }

    int64_t sent = 0, start = now_ns();
    int64_t coalesce = rate > DENSE ? COALESCE_DENSE_NS : COALESCE_NS;
    while (sent < count) {
        int64_t due = count - sent;
        if (rate > 0) {
            int64_t now = now_ns();
            due = (int64_t)((now - start) * rate / 1e9) + 1 - sent;
            if (due < 1) {
                int64_t until = start + (int64_t)(sent * 1e9 / rate);
                if (until < now + coalesce)
                    until = now + coalesce;
                struct timespec t = {until / 1000000000, until % 1000000000};
                clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
                continue;
            }
        }
        int batch = due < BATCH ? due : BATCH;
        if (batch > count - sent)
            batch = count - sent;
        for (int i = 0; i < batch; i++) {
            struct sockaddr_in6 *destination = &to[(sent + i) % destinations];
            uint8_t *packet = iov[i].iov_base;
            uint32_t seq = htonl((uint32_t)(sent + i));
            if (header)
                ipv6_header(packet, size - OUTER, 41, source, (uint8_t *)&destination->sin6_addr);
            memcpy(packet + inner_at + 48, &seq, sizeof seq);
            messages[i].msg_hdr.msg_name = destination;
        }
        int done = sendmmsg(fd, messages, batch, 0);
        if (done < 0) {
            if (errno == EINTR)
                continue;
            perror("sendmmsg");
            return 4;
        }
        sent += done;
    }
    double seconds = (now_ns() - start) / 1e9;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"packets\": %lld, \"seconds\": %.6f, \"cpu_s\": %.6f}\n", (long long)sent, seconds, cpu);
    return 0;
}
