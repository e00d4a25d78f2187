// The upstream of bench/gateway: an OpenAI-compatible server that costs as little as it can. One thread, epoll.
//
//   upstream [EVENTS=100] [GAP_US=10000]     prints "port N" and serves on 127.0.0.1 until it is killed
//
// The model's name in the body says what comes: "...paced" streams one event every GAP_US, "...idle" one event and then
// nothing, any other name all events at once, one write each. Without "stream":true: one JSON answer of 581 bytes.
// Each event's content is " t=<CLOCK_MONOTONIC in ns> ", so that a client can tell how long it was on its way.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FD = 8192, MAX_REQUEST = 1 << 20, BATCH = 256 };

typedef struct {
    char *in, *out;         // what came and was not answered yet; what could not be written yet
    int in_len, in_cap, out_len, out_cap;
    int left;               // events of the paced stream that are still to come; -1: no paced stream
    long long due;          // when the next of them goes out
} Peer;

static Peer peers[MAX_FD];
static int paced[MAX_FD], paced_count, epoll_fd, events = 100;
static long long gap_ns = 10000000;
static char answer[2048];
static int answer_len;

static const char STREAM_HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                                  "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
#define CHUNK "data: {\"id\":\"chatcmpl-Bench0000000000000000000001\",\"object\":\"chat.completion.chunk\"," \
              "\"created\":1763683200,\"model\":\"bench-1-2026-01-01\",\"system_fingerprint\":\"fp_0123456789\",\"choices\":["

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void forget_paced(int fd) {
    for (int i = 0; i < paced_count; i++)
        if (paced[i] == fd) { paced[i] = paced[--paced_count]; return; }
}

static void hang_up(int fd) {
    forget_paced(fd);
    free(peers[fd].in);
    free(peers[fd].out);
    peers[fd] = (Peer){0};
    close(fd);
}

static void watch(int fd, int op, int also) {
    struct epoll_event e = {.events = EPOLLIN | also, .data.fd = fd};
    epoll_ctl(epoll_fd, op, fd, &e);
}

static void keep(char **buffer, int *cap, int need) {
    if (need <= *cap) return;
    *cap = need * 2;
    *buffer = realloc(*buffer, *cap);
    if (!*buffer) abort();
}

static void say(int fd, const char *data, int len) {
    Peer *p = &peers[fd];
    if (!p->out_len) {
        int sent = send(fd, data, len, MSG_NOSIGNAL);
        if (sent == len) return;
        if (sent < 0) sent = 0;
        data += sent;
        len -= sent;
        watch(fd, EPOLL_CTL_MOD, EPOLLOUT);
    }
    keep(&p->out, &p->out_cap, p->out_len + len);
    memcpy(p->out + p->out_len, data, len);
    p->out_len += len;
}

static void flush_out(int fd) {
    Peer *p = &peers[fd];
    int sent = send(fd, p->out, p->out_len, MSG_NOSIGNAL);
    if (sent <= 0) return;
    memmove(p->out, p->out + sent, p->out_len - sent);
    if (!(p->out_len -= sent)) watch(fd, EPOLL_CTL_MOD, 0);
}

static void say_chunk(int fd, const char *event, int len, const char *after) {
    char frame[2048];
    say(fd, frame, snprintf(frame, sizeof frame, "%x\r\n%.*s\r\n%s", len, len, event, after));
}

static void say_content(int fd) {
    char event[1024];
    int len = snprintf(event, sizeof event, CHUNK "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\" t=%lld \"},"
                       "\"logprobs\":null,\"finish_reason\":null}]}\n\n", now_ns());
    say_chunk(fd, event, len, "");
}

static void say_end(int fd) {
    char event[1024];
    int len = snprintf(event, sizeof event,
                       CHUNK "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n");
    say_chunk(fd, event, len, "");
    len = snprintf(event, sizeof event, CHUNK "],\"usage\":{\"prompt_tokens\":187,\"completion_tokens\":%d,"
                   "\"total_tokens\":%d}}\n\n", events, 187 + events);
    say_chunk(fd, event, len, "");
    say_chunk(fd, "data: [DONE]\n\n", 14, "0\r\n\r\n");
}

static int has(const char *body, int len, const char *text) { return memmem(body, len, text, strlen(text)) != NULL; }

static void reply(int fd, const char *body, int len) {
    if (!has(body, len, "\"stream\":true")) { say(fd, answer, answer_len); return; }
    say(fd, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    if (has(body, len, "idle\"")) { say_content(fd); return; }
    if (has(body, len, "paced\"")) {
        peers[fd].left = events;
        peers[fd].due = now_ns();
        paced[paced_count++] = fd;
        return;
    }
    for (int i = 0; i < events; i++) say_content(fd);
    say_end(fd);
}

// Answer every whole request that has come; -1: the connection is not to be kept.
static int serve(int fd) {
    Peer *p = &peers[fd];
    for (;;) {
        char *head_end = memmem(p->in, p->in_len, "\r\n\r\n", 4);
        if (!head_end) return p->in_len < MAX_REQUEST ? 0 : -1;
        *head_end = 0;
        char *told = strcasestr(p->in, "\r\ncontent-length:");
        int chunked = strcasestr(p->in, "\r\ntransfer-encoding: chunked") != NULL;
        *head_end = '\r';
        char *body = head_end + 4;
        int rest = p->in_len - (int)(body - p->in), size = told ? atoi(told + 17) : 0;
        if (chunked) {
            char *last = memmem(body, rest, "\r\n0\r\n\r\n", 7);
            size = last ? (int)(last + 7 - body) : MAX_REQUEST;
        }
        if (size > MAX_REQUEST || size < 0) return -1;
        if (rest < size) return 0;
        if (p->in[0] == 'G') say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 40);
        else reply(fd, body, size);
        p->in_len = rest - size;
        memmove(p->in, body + size, p->in_len);
        if (!p->in_len) return 0;
    }
}

static void hear(int fd) {
    Peer *p = &peers[fd];
    keep(&p->in, &p->in_cap, p->in_len + 16384);
    int got = recv(fd, p->in + p->in_len, p->in_cap - p->in_len - 1, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { hang_up(fd); return; }
    p->in_len += got;
    p->in[p->in_len] = 0;
    if (serve(fd) < 0) hang_up(fd);
}

static void greet(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FD) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(fd, EPOLL_CTL_ADD, 0);
    }
}

static void pace(void) {
    for (int i = paced_count - 1; i >= 0; i--) {
        int fd = paced[i];
        Peer *p = &peers[fd];
        while (p->left >= 0 && p->due <= now_ns()) {
            if (p->left-- > 0) say_content(fd);
            else { say_end(fd); forget_paced(fd); }
            p->due += gap_ns;
        }
    }
}

static int wait_ms(void) {
    if (!paced_count) return -1;
    long long first = peers[paced[0]].due;
    for (int i = 1; i < paced_count; i++)
        if (peers[paced[i]].due < first) first = peers[paced[i]].due;
    long long wait = first - now_ns();
    if (wait <= 0) return 0;
    if (wait < 1000000) {  // epoll counts in ms
        struct timespec t = {0, wait};
        nanosleep(&t, 0);
        return 0;
    }
    return (int)(wait / 1000000);
}

static void make_answer(void) {
    static const char *body =
        "{\"id\":\"chatcmpl-Bench0000000000000000000001\",\"object\":\"chat.completion\",\"created\":1763683200,"
        "\"model\":\"bench-1-2026-01-01\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
        "\"The capital of France is Paris. It has been the political and cultural centre of the country for centuries.\","
        "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":187,"
        "\"completion_tokens\":24,\"total_tokens\":211,\"prompt_tokens_details\":{\"cached_tokens\":0},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":0}},\"system_fingerprint\":\"fp_0123456789\"}";
    answer_len = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\nx-request-id: req_bench\r\n\r\n%s", strlen(body), body);
}

int main(int argc, char **argv) {
    if (argc > 1) events = atoi(argv[1]);
    if (argc > 2) gap_ns = atoll(argv[2]) * 1000;
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) { files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files); }
    make_answer();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (bind(listener, (void *)&at, size) || listen(listener, 4096)) { perror("upstream"); return 1; }
    getsockname(listener, (void *)&at, &size);
    printf("port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    epoll_fd = epoll_create1(0);
    watch(listener, EPOLL_CTL_ADD, 0);
    struct epoll_event ready[BATCH];
    for (;;) {
        int count = epoll_wait(epoll_fd, ready, BATCH, wait_ms());
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) { greet(fd); continue; }
            if (ready[i].events & EPOLLOUT) flush_out(fd);
            if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) hear(fd);
        }
        pace();
    }
}
