// The load of bench/gateway: so many kept connections, each sends one request after the other. One thread, epoll.
//
//   load PORT CONNECTIONS SECONDS WARM_SECONDS REQUEST_FILE
//
// REQUEST_FILE holds the whole HTTP/1.1 request as bytes. Prints one line of JSON: times in microseconds; "events" are
// stream events that carry " t=<ns> ", "delay" is the time from that stamp to here. "sent" counts the warm-up too.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 65536, HEAD = 8192, TAIL = 48, BATCH = 256, UNTIL_CLOSE = -2 };
enum { SIZE_LINE, DATA, DATA_END, TRAILER };

typedef struct {
    int fd, status, in_body, chunked, part, line_len, tail_len, first_seen, close_after;
    long left;              // bytes of the body, or of this chunk, still to come
    long long began;
    char head[HEAD], line[32], tail[TAIL];
    int head_len, trailer_len;
} Line;

typedef struct { double *values; long count, cap; } Series;

static Series total, first, delay;
static long ok, bad, broken, events, sent;
static int port, epoll_fd, recording, request_len;
static char *request, *sample;

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void add(Series *s, double value) {
    if (s->count == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 4096;
        s->values = realloc(s->values, s->cap * sizeof *s->values);
        if (!s->values) abort();
    }
    s->values[s->count++] = value;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at(Series *s, double share) { return s->count ? s->values[(long)(share * (s->count - 1) + 0.5)] : 0; }

static void begin(Line *l) {
    int fd = l->fd;
    memset(l, 0, offsetof(Line, head));
    l->head_len = l->trailer_len = 0;
    l->fd = fd;
    l->began = now_ns();
    sent++;
    for (int done = 0; done < request_len;) {
        int n = send(fd, request + done, request_len - done, MSG_NOSIGNAL);
        if (n > 0) done += n;
        else if (errno == EAGAIN) usleep(50);
        else { broken++; return; }
    }
}

static void dial(Line *l) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    l->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (l->fd < 0 || connect(l->fd, (void *)&to, sizeof to)) { perror("load: connect"); exit(1); }
    setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(l->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = l};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, l->fd, &e);
    begin(l);
}

// Find the stamps in body bytes; one that is cut in two is put together from the tail of the bytes before.
static void look(Line *l, const char *data, int len, long long now) {
    static char joined[CHUNK + TAIL + 1];
    if (len <= 0) return;
    if (!l->first_seen && recording) add(&first, (now - l->began) / 1e3);
    l->first_seen = 1;
    memcpy(joined, l->tail, l->tail_len);
    memcpy(joined + l->tail_len, data, len);
    char *from = joined, *end = joined + l->tail_len + len, *hit;
    *end = 0;
    while ((hit = memmem(from, end - from, " t=", 3))) {
        char *after;
        long long stamp = strtoll(hit + 3, &after, 10);
        if (after >= end) break;
        if (recording && stamp > 0) { events++; add(&delay, (now - stamp) / 1e3); }
        from = after;
    }
    l->tail_len = end - from < TAIL ? (int)(end - from) : TAIL;
    memcpy(l->tail, end - l->tail_len, l->tail_len);
}

static int whole(Line *l, long long now) {
    if (recording && l->status == 200) { ok++; add(&total, (now - l->began) / 1e3); }
    else if (recording) bad++;
    return 1;
}

static int chunked(Line *l, const char *data, int len, long long now) {
    for (int i = 0; i < len;) {
        if (l->part == DATA) {
            int n = len - i < l->left ? len - i : (int)l->left;
            look(l, data + i, n, now);
            i += n;
            if (!(l->left -= n)) l->part = DATA_END;
        } else if (l->part == SIZE_LINE) {
            char c = data[i++];
            if (c != '\n') { if (l->line_len < 31) l->line[l->line_len++] = c; continue; }
            l->line[l->line_len] = 0;
            l->line_len = 0;
            l->left = strtol(l->line, 0, 16);
            l->part = l->left ? DATA : TRAILER;
        } else if (l->part == DATA_END) {
            if (data[i++] == '\n') l->part = SIZE_LINE;
        } else if (data[i++] == '\n') return whole(l, now);
    }
    return 0;
}

static int body(Line *l, const char *data, int len, long long now) {
    if (l->chunked) return chunked(l, data, len, now);
    look(l, data, len, now);
    if (l->left == UNTIL_CLOSE) return 0;
    return (l->left -= len) <= 0 ? whole(l, now) : 0;
}

// Take bytes in; 1: the response is whole, -1: it is none.
static int take(Line *l, const char *data, int len, long long now) {
    if (l->in_body) return body(l, data, len, now);
    int n = len < HEAD - 1 - l->head_len ? len : HEAD - 1 - l->head_len, had = l->head_len;
    memcpy(l->head + had, data, n);
    l->head_len += n;
    l->head[l->head_len] = 0;
    char *end = strstr(l->head, "\r\n\r\n");
    if (!end) return l->head_len < HEAD - 1 ? 0 : -1;
    end[2] = 0;
    l->status = atoi(l->head + 9);
    l->in_body = 1;
    l->chunked = strcasestr(l->head, "\r\ntransfer-encoding: chunked") != NULL;
    l->close_after = strcasestr(l->head, "\r\nconnection: close") != NULL;
    char *told = strcasestr(l->head, "\r\ncontent-length:");
    l->left = told ? atol(told + 17) : UNTIL_CLOSE;
    int used = (int)(end + 4 - l->head) - had;
    if (l->status != 200 && !sample) asprintf(&sample, "%s\n%.*s", l->head, len - used, data + used);
    if (!l->chunked && !l->left) return whole(l, now);
    return used < len ? body(l, data + used, len - used, now) : 0;
}

static void hear(Line *l) {
    static char data[CHUNK];
    int got = recv(l->fd, data, CHUNK, 0), done;
    long long now = now_ns();
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        if (l->in_body && l->left == UNTIL_CLOSE && !l->chunked) whole(l, now);
        else if (recording) broken++;
        close(l->fd);
        dial(l);
        return;
    }
    done = take(l, data, got, now);
    if (done && (done < 0 || l->close_after)) { close(l->fd); dial(l); }
    else if (done) begin(l);
}

static void read_request(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(1); }
    request = malloc(4 << 20);
    request_len = (int)fread(request, 1, 4 << 20, file);
    fclose(file);
}

static void report(double seconds) {
    qsort(total.values, total.count, sizeof(double), by_size);
    qsort(first.values, first.count, sizeof(double), by_size);
    qsort(delay.values, delay.count, sizeof(double), by_size);
    printf("{\"calls_s\":%.1f,\"ok\":%ld,\"bad\":%ld,\"broken\":%ld,\"sent\":%ld,\"p50\":%.1f,\"p99\":%.1f,"
           "\"first_p50\":%.1f,\"first_p99\":%.1f,\"events_s\":%.0f,\"delay_p50\":%.1f,\"delay_p99\":%.1f}\n",
           ok / seconds, ok, bad, broken, sent, at(&total, .5), at(&total, .99), at(&first, .5), at(&first, .99),
           events / seconds, at(&delay, .5), at(&delay, .99));
    if (sample) fprintf(stderr, "first refusal:\n%.1500s\n", sample);
}

int main(int argc, char **argv) {
    if (argc < 6) { fprintf(stderr, "load PORT CONNECTIONS SECONDS WARM_SECONDS REQUEST_FILE\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) { files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files); }
    port = atoi(argv[1]);
    int count = atoi(argv[2]);
    read_request(argv[5]);
    epoll_fd = epoll_create1(0);
    Line *lines = calloc(count, sizeof *lines);
    for (int i = 0; i < count; i++) dial(&lines[i]);
    long long from = now_ns() + (long long)(atof(argv[4]) * 1e9), until = from + (long long)(atof(argv[3]) * 1e9);
    struct epoll_event ready[BATCH];
    for (long long now = now_ns(); now < until; now = now_ns()) {
        if (!recording && now >= from) { recording = 1; from = now; }
        int n = epoll_wait(epoll_fd, ready, BATCH, 20);
        for (int i = 0; i < n; i++) hear(ready[i].data.ptr);
    }
    report((now_ns() - from) / 1e9);
}
