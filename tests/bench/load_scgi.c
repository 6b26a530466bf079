/* Load for an SCGI responder on a Unix socket: so many connections at a time, one request on each.
 * Usage: load_scgi SOCKET CONCURRENCY SECONDS TARGET
 * Prints requests/s, the median and the 99th percentile of the time from connect to the end of the response in
 * microseconds, and the number of errors: whatever is not a whole response of status 200. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1024, TIMES = 1 << 22 };

struct connection {
    int fd;
    size_t got;
    uint64_t begun;
    char response[8192];
};

static struct connection connections[MOST];
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static char request[2048];
static size_t request_length;
static uint32_t times[TIMES];
static size_t served, errors;
static int epoll;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* What nginx sends with the file in deploy/, for a plain GET. */
static void make_request(const char *target) {
    const char *pairs[] = {
        "CONTENT_LENGTH", "0", "SCGI", "1", "GATEWAY_INTERFACE", "CGI/1.1", "SERVER_SOFTWARE", "nginx/1.22.1",
        "REQUEST_METHOD", "GET", "REQUEST_URI", target, "QUERY_STRING", "", "CONTENT_TYPE", "", "DOCUMENT_URI", target,
        "SERVER_PROTOCOL", "HTTP/1.1", "REQUEST_SCHEME", "http", "REMOTE_ADDR", "127.0.0.1", "REMOTE_PORT", "50000",
        "SERVER_ADDR", "127.0.0.1", "SERVER_PORT", "80", "SERVER_NAME", "example.org", "HTTP_HOST", "example.org",
        "HTTP_USER_AGENT", "load", "HTTP_ACCEPT", "*/*",
    };
    char head[1500];
    size_t length = 0;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        size_t n = strlen(pairs[i]) + 1;
        if (length + n > sizeof head) exit(2);
        memcpy(head + length, pairs[i], n);
        length += n;
    }
    size_t prefix = (size_t)sprintf(request, "%zu:", length);
    memcpy(request + prefix, head, length);
    request[prefix + length] = ',';
    request_length = prefix + length + 1;
}

static void fail(const char *what) {
    if (errors++ < 5) fprintf(stderr, "load_scgi: %s: %s\n", what, errno ? strerror(errno) : "not as it should be");
}

/* Connects and sends; the request always fits into a new socket's buffer. False where that failed. */
static int begin(struct connection *c) {
    c->got = 0;
    c->begun = now();
    errno = 0;
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
    if (c->fd >= 0 && !connect(c->fd, (struct sockaddr *)&address, sizeof address)
        && send(c->fd, request, request_length, MSG_NOSIGNAL) == (ssize_t)request_length
        && !epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event))
        return 1;
    fail("connect and send");
    if (c->fd >= 0) close(c->fd);
    return 0;
}

static int is_whole(struct connection *c) {
    c->response[c->got] = 0;
    char *body = strstr(c->response, "\r\n\r\n"), *length = strstr(c->response, "Content-Length: ");
    return body && length && length < body && !strncmp(c->response, "Status: 200", 11)
        && strlen(body + 4) == strtoul(length + 16, 0, 10);
}

/* Takes what has come. True where the connection has ended. */
static int take(struct connection *c) {
    for (;;) {
        ssize_t n = recv(c->fd, c->response + c->got, sizeof c->response - 1 - c->got, 0);
        if (n < 0 && errno == EAGAIN) return 0;
        if (n > 0) {
            c->got += (size_t)n;
            continue;
        }
        if (n == 0) errno = 0;
        if (n < 0 || !is_whole(c)) fail("response");
        else if (served < TIMES) times[served++] = (uint32_t)((now() - c->begun) / 1000);
        close(c->fd);
        return 1;
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 5 || strlen(argv[1]) >= sizeof address.sun_path || atoi(argv[2]) < 1 || atoi(argv[2]) > MOST) return 2;
    strcpy(address.sun_path, argv[1]);
    make_request(argv[4]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t open = 0;
    uint64_t start = now(), end = start + (uint64_t)(atof(argv[3]) * 1e9);
    for (int i = 0; i < atoi(argv[2]); i++) open += (size_t)begin(&connections[i]);
    while (open > 0) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, 10000);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            errors += open;
            fprintf(stderr, "load_scgi: %zu requests without an answer for 10 s\n", open);
            break;
        }
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (take(c) && (now() >= end || !begin(c))) open--;
        }
    }
    double seconds = (double)(now() - start) / 1e9;
    qsort(times, served, sizeof *times, by_size);
    uint32_t median = served ? times[served / 2] : 0, slow = served ? times[served * 99 / 100] : 0;
    printf("%.0f\t%u\t%u\t%zu\n", (double)served / seconds, median, slow, errors);
    return errors > 0;
}
