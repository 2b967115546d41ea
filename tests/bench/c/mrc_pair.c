/* The least two programs can do to write memory with MRC's packets: no windows, no acknowledgements, no recovery.
 *
 * usage: mrc_pair send|ring|raw SHARED PATHS SECONDS RATE BURST
 *
 * send:  IPv6-in-IPv6 WRITEs with whole headers, sendmmsg of 64 gathered from header, payload where it lies, and ICRC.
 * ring:  receives from a packet ring (TPACKET_V2).
 * raw:   receives by recvmmsg of 64 from a raw socket of protocol 41.
 * Both receivers check the ICRC, then copy the payload to the address in the RETH.
 *
 * SHARED is a file of a page that both map: by it the receiver tells how far it is, at no cost, so that the sender does
 * not overrun it. PATHS begins with struct paths; a header of each path follows. RATE is packets/s, given as bursts of
 * BURST packets when due; 0 is as fast as possible. Each prints JSON at its end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef USE_ISAL
#include <isa-l/crc.h>
static uint32_t crc_of(uint32_t crc, const uint8_t *data, size_t size) { return crc32_gzip_refl(crc, data, size); }
#else
#include <zlib.h>
static uint32_t crc_of(uint32_t crc, const uint8_t *data, size_t size) { return crc32(crc, data, size); }
#endif

enum {
    BATCH = 64, HEAD = 128, INNER = 40, PAYLOAD = 4096, TRAILER = 4, PACKET = 4608,
    REGION = 16 << 20, WINDOW = 2048, STALL_NS = 20000000, END_NS = 100000000,
    RING_BLOCK = 36864 * 7, RING_BLOCKS = 73, RING_FRAMES = RING_BLOCK / PACKET * RING_BLOCKS, RING_AT = 80
};

struct shared {
    _Atomic int64_t window;   /* packets that may be unseen; not 0: the receiver is ready */
    _Atomic int64_t seen;     /* one more than the largest sequence number received */
    _Atomic int64_t begun_ns;
    _Atomic int64_t sent;     /* of all, once the sender has ended; else -1 */
};

struct paths {
    uint32_t count, header_bytes, start, psn_at, va_at, rkey_at, rkey, port;
    uint64_t va;
    uint8_t mask[HEAD];
};

static struct shared *shared;
static struct paths *paths;
static uint8_t *heads, *region;
static int64_t placed, bad, foreign, first_ns, last_ns;

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

static void fail(const char *what)
{
    perror(what);
    exit(4);
}

static void sleep_until(int64_t ns)
{
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* The ICRC of a packet, its headers given from the inner IPv6 header on. */
static uint32_t icrc(const uint8_t *inner, const uint8_t *payload, size_t size)
{
    uint8_t masked[HEAD];
    size_t start = paths->start, end = paths->header_bytes;
    memset(masked + start, 0xff, INNER - start);
    for (size_t i = INNER; i < end; i++)
        masked[i] = inner[i - INNER] | paths->mask[i];
    return crc_of(crc_of(0, masked + start, end - start), payload, size);
}

static void store(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = bytes; i--; value >>= 8)
        at[i] = value;
}

static uint64_t load(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

static void send_all(double seconds, double rate, int64_t burst)
{
    int fd = socket(AF_INET6, SOCK_RAW, IPPROTO_RAW), buffer = 8 << 20;
    if (fd < 0)
        fail("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer))
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    static uint8_t packets[BATCH][HEAD];
    static uint32_t crcs[BATCH];
    static struct iovec iov[BATCH][3];
    static struct mmsghdr messages[BATCH];
    struct sockaddr_in6 *to = calloc(paths->count, sizeof *to);
    for (uint32_t i = 0; i < paths->count; i++) {
        to[i].sin6_family = AF_INET6;
        memcpy(&to[i].sin6_addr, heads + (size_t)i * HEAD + 24, 16);
    }
    for (int i = 0; i < BATCH; i++) {
        iov[i][0] = (struct iovec){packets[i], paths->header_bytes};
        iov[i][1].iov_len = PAYLOAD;
        iov[i][2] = (struct iovec){&crcs[i], TRAILER};
        messages[i].msg_hdr.msg_iov = iov[i];
        messages[i].msg_hdr.msg_iovlen = 3;
        messages[i].msg_hdr.msg_namelen = sizeof *to;
    }
    int64_t waited_from = now_ns();
    while (!atomic_load(&shared->window)) {
        if (now_ns() - waited_from > 10000000000LL) {
            fprintf(stderr, "no receiver\n");
            exit(4);
        }
        sleep_until(now_ns() + 1000000);
    }
    int64_t window = atomic_load(&shared->window), start = now_ns(), until = start + (int64_t)(seconds * 1e9);
    int64_t sent = 0, refused = 0, stalls = 0, given_up = 0, seen_before = 0, seen_ns = start;
    double cpu = cpu_s();
    atomic_store(&shared->begun_ns, start);
    for (;;) {
        int64_t now = now_ns();
        if (now >= until)
            break;
        int64_t seen = atomic_load(&shared->seen);
        if (seen != seen_before)
            seen_before = seen, seen_ns = now;
        if (seen < given_up)
            seen = given_up;
        int64_t due = seen + window - sent;
        if (due < BATCH) {
            if (now - seen_ns > STALL_NS) { /* The last were lost. */
                stalls++;
                given_up = sent;
                seen_ns = now;
            } else if (due < 1 || window >= 2 * BATCH) {
                sleep_until(now + 20000);
            }
            if (due < 1 || window >= 2 * BATCH)
                continue;
        }
        if (rate > 0) {
            int64_t whole = ((int64_t)((now - start) * rate / 1e9 / burst) + 1) * burst - sent;
            if (whole < 1) {
                sleep_until(start + (int64_t)(sent * 1e9 / rate) + 1);
                continue;
            }
            due = whole < due ? whole : due;
        }
        int batch = due < BATCH ? due : BATCH;
        for (int i = 0; i < batch; i++) {
            int64_t psn = sent + i, offset = psn * PAYLOAD % REGION;
            uint32_t path = psn % paths->count;
            uint8_t *head = packets[i];
            memcpy(head, heads + (size_t)path * HEAD, HEAD);
            store(head + paths->psn_at, psn & 0xffffff, 3);
            store(head + paths->va_at, paths->va + offset, 8);
            iov[i][1].iov_base = region + offset;
            crcs[i] = icrc(head + INNER, region + offset, PAYLOAD);
            messages[i].msg_hdr.msg_name = &to[path];
        }
        for (int done = 0; done < batch;) {
            int taken = sendmmsg(fd, messages + done, batch - done, 0);
            if (taken < 0 && errno == EINTR)
                continue;
            if (taken < 0 && errno != ENOBUFS)
                fail("sendmmsg");
            refused += taken < 0;
            done += taken < 0 ? 1 : taken;
        }
        sent += batch;
    }
    double spent = cpu_s() - cpu;
    atomic_store(&shared->sent, sent);
    printf("{\"packets\": %lld, \"refused\": %lld, \"stalls\": %lld, \"cpu_s\": %.6f}\n", (long long)sent,
           (long long)refused, (long long)stalls, spent);
}

/* Take one packet, from its inner IPv6 header on. */
static void take(const uint8_t *inner, size_t size)
{
    size_t head = paths->header_bytes - INNER;
    if (size < head + TRAILER || inner[6] != 17 || load(inner + 42, 2) != paths->port) {
        foreign++;
        return;
    }
    const uint8_t *payload = inner + head;
    size_t length = size - head - TRAILER;
    uint32_t stored;
    memcpy(&stored, payload + length, TRAILER);
    uint64_t offset = load(inner + paths->va_at - INNER, 8) - paths->va;
    if (icrc(inner, payload, length) != stored || load(inner + paths->rkey_at - INNER, 4) != paths->rkey ||
        offset > REGION - length) {
        bad++;
        return;
    }
    memcpy(region + offset, payload, length);
    placed++;
    int64_t seen = atomic_load_explicit(&shared->seen, memory_order_relaxed);
    int64_t ahead = (int64_t)((load(inner + paths->psn_at - INNER, 3) - (seen & 0xffffff)) << 40) >> 40;
    if (ahead >= 0)
        atomic_store(&shared->seen, seen + ahead + 1);
}

static int ended(int got)
{
    int64_t now = now_ns();
    if (got) {
        first_ns = first_ns ? first_ns : now;
        last_ns = now;
    }
    return atomic_load(&shared->sent) >= 0 && now - last_ns > END_NS;
}

static void silence(int fd)
{
    struct sock_filter drop = {BPF_RET, 0, 0, 0};
    struct sock_fprog program = {1, &drop};
    setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static void receive_raw(int fd)
{
    int buffer = 8 << 20;
    socklen_t size = sizeof buffer;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, &size);
    static uint8_t packets[BATCH][PACKET];
    static struct iovec iov[BATCH];
    static struct mmsghdr messages[BATCH];
    for (int i = 0; i < BATCH; i++) {
        iov[i] = (struct iovec){packets[i], PACKET};
        messages[i].msg_hdr.msg_iov = &iov[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    /* A packet of 4 KB takes 8 KiB and some of the buffer. */
    int64_t holds = buffer / 8704;
    atomic_store(&shared->window, holds < WINDOW ? holds : WINDOW);
    for (int got = 0; !ended(got);) {
        struct pollfd wait = {fd, POLLIN, 0};
        got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
        if (got < 0)
            got = 0;
        if (!got)
            poll(&wait, 1, 10);
        for (int i = 0; i < got; i++)
            take(packets[i], messages[i].msg_len);
    }
}

static void receive_ring(void)
{
    int fd = socket(AF_PACKET, SOCK_DGRAM, 0), version = TPACKET_V2, on = 1;
    struct tpacket_req request = {RING_BLOCK, RING_BLOCKS, PACKET, RING_FRAMES};
    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) ||
        setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof request))
        fail("packet ring");
    uint8_t *ring = mmap(NULL, (size_t)RING_BLOCK * RING_BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ring == MAP_FAILED)
        fail("mmap");
    struct sockaddr_ll all = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IPV6)};
    if (bind(fd, (struct sockaddr *)&all, sizeof all))
        fail("bind");
    atomic_store(&shared->window, WINDOW);
    int at = 0;
    for (int got = 0; !ended(got);) {
        struct tpacket2_hdr *packet = NULL;
        for (got = 0; got < BATCH; got++) {
            packet = (struct tpacket2_hdr *)(ring + (size_t)at * PACKET);
            if (!(__atomic_load_n(&packet->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
                break;
            uint8_t *outer = (uint8_t *)packet + packet->tp_net;
            if (packet->tp_snaplen > INNER && outer[6] == 41)
                take(outer + INNER, packet->tp_snaplen - INNER);
            __atomic_store_n(&packet->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
            at = (at + 1) % RING_FRAMES;
        }
        struct pollfd wait = {fd, POLLIN, 0};
        if (!got)
            poll(&wait, 1, 10);
    }
}

static void *map(const char *path, int writable)
{
    int fd = open(path, writable ? O_RDWR : O_RDONLY);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    void *at = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    if (fd < 0 || at == MAP_FAILED)
        fail(path);
    return at;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: %s send|ring|raw SHARED PATHS SECONDS RATE BURST\n", argv[0]);
        return 2;
    }
    shared = map(argv[2], 1);
    paths = map(argv[3], 0);
    heads = (uint8_t *)(paths + 1);
    region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (region == MAP_FAILED)
        fail("mmap");
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    if (!strcmp(argv[1], "send")) {
        send_all(atof(argv[4]), atof(argv[5]), atoll(argv[6]));
        return 0;
    }
    /* While such a socket is open the kernel answers nothing to these packets. */
    int fd = socket(AF_INET6, SOCK_RAW, 41);
    if (fd < 0)
        fail("socket");
    double cpu = cpu_s();
    if (!strcmp(argv[1], "ring")) {
        silence(fd);
        receive_ring();
    } else {
        receive_raw(fd);
    }
    printf("{\"placed\": %lld, \"bad\": %lld, \"foreign\": %lld, \"seconds\": %.6f, \"cpu_s\": %.6f}\n",
           (long long)placed, (long long)bad, (long long)foreign,
           (last_ns - atomic_load(&shared->begun_ns)) / 1e9, cpu_s() - cpu);
    return 0;
}
