/* What app.rs does over SCGI, in C: workers that are forked before, block in accept(2), read one request, and answer it
 * with one write. Usage: limit_scgi SOCKET WORKERS, with SESSDIR and PAD; ends by TERM. */
#include "slots.h"
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { MOST = 64 * 1024 };

/* The value of a meta-variable in the netstring's bytes, which end with a zero. */
static const char *variable(const char *at, const char *end, const char *name) {
    while (at < end) {
        const char *value = at + strlen(at) + 1;
        if (value >= end) return 0;
        if (!strcmp(at, name)) return value;
        at = value + strlen(value) + 1;
    }
    return 0;
}

/* Reads until the netstring is whole; where it begins, and its length, or 0. */
static const char *receive(int fd, char *bytes, size_t *length) {
    size_t got = 0;
    for (;;) {
        ssize_t n = recv(fd, bytes + got, MOST - got, 0);
        if (n <= 0) return 0;
        got += (size_t)n;
        const char *colon = memchr(bytes, ':', got < 8 ? got : 8);
        if (!colon) {
            if (got >= 8) return 0;
            continue;
        }
        size_t prefix = (size_t)(colon - bytes) + 1;
        *length = strtoul(bytes, 0, 10);
        if (*length < 1 || prefix + *length + 1 > MOST) return 0;
        if (got < prefix + *length + 1) continue;
        return bytes[prefix + *length] == ',' && !bytes[prefix + *length - 1] ? colon + 1 : 0;
    }
}

static void serve(int listener) {
    static char bytes[MOST];
    char response[512];
    for (;;) {
        int fd = accept4(listener, 0, 0, SOCK_CLOEXEC);
        if (fd < 0) continue;
        size_t length = 0;
        const char *head = receive(fd, bytes, &length);
        const char *target = head ? variable(head, head + length, "REQUEST_URI") : 0;
        int n = target ? slots_answer(target, variable(head, head + length, "HTTP_COOKIE"), response) : 0;
        if (n < 0) fputs("limit_scgi: no such session\n", stderr);
        else if (n && send(fd, response, (size_t)n, MSG_NOSIGNAL) != n) perror("limit_scgi: send");
        close(fd);
    }
}

static void stop(int signal) {
    (void)signal;
    /* The whole family, which has a process group of its own; the master waits for the others. */
    kill(0, SIGUSR1);
}

int main(int argc, char **argv) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const char *directory = getenv("SESSDIR");
    if (argc != 3 || strlen(argv[1]) >= sizeof address.sun_path || !directory || slots_open(directory) < 0) return 2;
    strcpy(address.sun_path, argv[1]);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("limit_scgi: listen");
        return 1;
    }
    pid_t master = getpid();
    setpgid(0, 0);
    for (int i = atoi(argv[2]); i > 0; i--) {
        pid_t pid = fork();
        if (pid < 0) {
            perror("limit_scgi: fork");
            return 1;
        }
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGUSR1);
            if (getppid() == master) serve(listener);
            _exit(0);
        }
    }
    signal(SIGUSR1, SIG_IGN);
    signal(SIGTERM, stop);
    while (wait(0) > 0 || errno == EINTR) {}
    return 0;
}
