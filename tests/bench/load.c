/* Load for an SCGI responder on a Unix socket, or an HTTP/1.1 server: so many clients, each with one request at a time.
 * Over SCGI each request has a connection of its own, over HTTP a client keeps its connection.
 * Usage: load unix:SOCKET|HOST:PORT CLIENTS SECONDS TARGET [COOKIES]   the lines of that file, taken in turn
 *        load unix:SOCKET|HOST:PORT new N TARGET                       N new sessions, and prints their cookies
 * Prints requests/s, the median and the 99th percentile of the time from connect (HTTP: from sending) to the end of the
 * response in microseconds, the number of errors, and the fewest and the most requests of a client. An error is
 * whatever is not a whole response of status 200; with a cookie, also one that knows no session of that name. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
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

struct client {
    int fd;
    size_t got, served;
    uint64_t begun;
    char response[8192];
};

static struct client clients[MOST];
static union {
    struct sockaddr any;
    struct sockaddr_un path;
    struct sockaddr_in ip;
} address;
static socklen_t address_length;
static struct { char *bytes; size_t length; } *requests;
static size_t kinds, next;
static int is_http, has_cookies, epoll;
static uint32_t times[TIMES];
static size_t served, errors;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void find(const char *text) {
    const char *colon = strrchr(text, ':');
    char host[64] = "";
    if (!strncmp(text, "unix:", 5) && strlen(text + 5) < sizeof address.path.sun_path) {
        address.path.sun_family = AF_UNIX;
        strcpy(address.path.sun_path, text + 5);
        address_length = sizeof address.path;
        return;
    }
    if (colon && (size_t)(colon - text) < sizeof host) memcpy(host, text, (size_t)(colon - text));
    is_http = 1;
    address.ip.sin_family = AF_INET;
    address.ip.sin_port = htons((uint16_t)(colon ? atoi(colon + 1) : 0));
    address_length = sizeof address.ip;
    if (!inet_aton(host, &address.ip.sin_addr)) exit(2);
}

/* What nginx sends with the file in deploy/, for a plain GET. */
static size_t scgi_request(char *request, const char *target, const char *cookie) {
    const char *pairs[] = {
        "CONTENT_LENGTH", "0", "SCGI", "1", "GATEWAY_INTERFACE", "CGI/1.1", "SERVER_SOFTWARE", "nginx/1.22.1",
        "REQUEST_METHOD", "GET", "REQUEST_URI", target, "QUERY_STRING", "", "CONTENT_TYPE", "", "DOCUMENT_URI", target,
        "SERVER_PROTOCOL", "HTTP/1.1", "REQUEST_SCHEME", "http", "REMOTE_ADDR", "127.0.0.1", "REMOTE_PORT", "50000",
        "SERVER_ADDR", "127.0.0.1", "SERVER_PORT", "80", "SERVER_NAME", "example.org", "HTTP_HOST", "example.org",
        "HTTP_USER_AGENT", "load", "HTTP_ACCEPT", "*/*", "HTTP_COOKIE", cookie,
    };
    size_t count = sizeof pairs / sizeof *pairs - (cookie ? 0 : 2), length = 0, n;
    char head[1500];
    for (size_t i = 0; i < count; i++, length += n) {
        n = strlen(pairs[i]) + 1;
        if (length + n > sizeof head) exit(2);
        memcpy(head + length, pairs[i], n);
    }
    size_t prefix = (size_t)sprintf(request, "%zu:", length);
    memcpy(request + prefix, head, length);
    request[prefix + length] = ',';
    return prefix + length + 1;
}

static void add_request(const char *target, const char *cookie) {
    char request[2048];
    size_t length;
    if (strlen(target) + strlen(cookie ? cookie : "") > 1000) exit(2);
    if (is_http)
        length = (size_t)sprintf(request, "GET %s HTTP/1.1\r\nHost: example.org\r\nUser-Agent: load\r\nAccept: */*\r\n%s%s%s\r\n",
            target, cookie ? "Cookie: " : "", cookie ? cookie : "", cookie ? "\r\n" : "");
    else length = scgi_request(request, target, cookie);
    requests = realloc(requests, (kinds + 1) * sizeof *requests);
    requests[kinds].bytes = malloc(length);
    memcpy(requests[kinds].bytes, request, length);
    requests[kinds++].length = length;
}

static void fail(const char *what, const struct client *c) {
    if (errors++ >= 5) return;
    fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "not as it should be");
    if (c && c->got) fprintf(stderr, "%.*s\n", (int)c->got, c->response);
}

static void leave(struct client *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

/* Sends the next request, over a new connection if there is none; it always fits into a socket's buffer. False where
 * that failed. */
static int begin(struct client *c) {
    size_t kind = next++ % kinds;
    int one = 1;
    c->got = 0;
    c->begun = now();
    errno = 0;
    if (c->fd < 0) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
        c->fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (c->fd < 0 || connect(c->fd, &address.any, address_length)
            || (is_http && setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
            || epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) {
            fail("connect", 0);
            leave(c);
            return 0;
        }
    }
    ssize_t sent = send(c->fd, requests[kind].bytes, requests[kind].length, MSG_NOSIGNAL);
    if (sent == (ssize_t)requests[kind].length) return 1;
    fail("send", 0);
    leave(c);
    return 0;
}

/* 0 while there is more to come, 1 for a response that is as it should be, else -1. */
static int judge(struct client *c, int ended) {
    c->response[c->got] = 0;
    char *body = strstr(c->response, "\r\n\r\n"), *length = strcasestr(c->response, "\r\nContent-Length:");
    if (!body) return ended ? -1 : 0;
    body += 4;
    size_t has = c->got - (size_t)(body - c->response), needs = 0;
    if (length && length < body) needs = strtoul(length + 17, 0, 10);
    else if (is_http && strcasestr(c->response, "\r\nTransfer-Encoding: chunked")) {
        /* Apache does not believe a script's Content-Length. */
        int is_whole = has > 5 && !strcmp(c->response + c->got - 5, "0\r\n\r\n");
        needs = is_whole ? has : has + 1;
        body += is_whole ? strcspn(body, "\n") + 1 : 0;
    } else return -1;
    if (has < needs && !ended) return 0;
    int is_good = !strncmp(c->response, is_http ? "HTTP/1.1 200" : "Status: 200", is_http ? 12 : 11) && has == needs
        && !strncmp(body, "visits: ", 8);
    if (is_good && has_cookies) is_good = atol(body + 8) > 0 && !strcasestr(c->response, "\r\nSet-Cookie:");
    return is_good ? 1 : -1;
}

/* Takes what has come. True where the request is over, for better or worse. */
static int take(struct client *c) {
    for (;;) {
        ssize_t n = recv(c->fd, c->response + c->got, sizeof c->response - 1 - c->got, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) return 0;
        errno = n < 0 ? errno : 0;
        c->got += n > 0 ? (size_t)n : 0;
        /* Without keep-alive the end is a part of the response. */
        if (!is_http && n > 0) continue;
        int verdict = n < 0 ? -1 : judge(c, n == 0);
        if (verdict == 0) continue;
        if (verdict < 0) fail("response", c);
        else if (served < TIMES) times[served++] = (uint32_t)((now() - c->begun) / 1000);
        c->served += verdict > 0;
        if (!is_http || verdict < 0 || strcasestr(c->response, "\r\nConnection: close")) leave(c);
        return 1;
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int make_sessions(long count) {
    struct epoll_event event;
    for (long i = 0; i < count; i++) {
        struct client *c = &clients[0];
        if (!begin(c)) return 1;
        while (!take(c))
            if (epoll_wait(epoll, &event, 1, 10000) < 1) return 1;
        char *cookie = strcasestr(c->response, "\r\nSet-Cookie: session=");
        if (errors || !cookie) return 1;
        printf("%.*s\n", (int)strcspn(cookie + 14, ";\r"), cookie + 14);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6) return 2;
    find(argv[1]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < MOST; i++) clients[i].fd = -1;
    if (argc == 6) {
        char line[256];
        FILE *cookies = fopen(argv[5], "r");
        while (cookies && fscanf(cookies, "%255s", line) == 1) add_request(argv[4], line);
        has_cookies = 1;
    } else add_request(argv[4], 0);
    if (!strcmp(argv[2], "new")) return make_sessions(atol(argv[3]));
    int count = atoi(argv[2]);
    if (count < 1 || count > MOST || !kinds) return 2;
    size_t open = 0, fewest = SIZE_MAX, most = 0;
    uint64_t start = now(), end = start + (uint64_t)(atof(argv[3]) * 1e9);
    for (int i = 0; i < count; i++) open += (size_t)begin(&clients[i]);
    while (open > 0) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, 10000);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            errors += open;
            fprintf(stderr, "load: %zu requests without an answer for 10 s\n", open);
            break;
        }
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (take(c) && (now() >= end || !begin(c))) open--;
        }
    }
    double seconds = (double)(now() - start) / 1e9;
    for (int i = 0; i < count; i++) {
        if (clients[i].served < fewest) fewest = clients[i].served;
        if (clients[i].served > most) most = clients[i].served;
    }
    qsort(times, served, sizeof *times, by_size);
    uint32_t median = served ? times[served / 2] : 0, slow = served ? times[served * 99 / 100] : 0;
    printf("%.0f\t%u\t%u\t%zu\t%zu\t%zu\n", (double)served / seconds, median, slow, errors, fewest, most);
    return errors > 0;
}
