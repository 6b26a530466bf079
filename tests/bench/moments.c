/* How long a pool takes from an event to the log line that answers it, by the clock at which the line is read.
 * Usage: moments start|kill|reload ROUNDS WORKERS PROGRAM ARGUMENT...
 * One line for each round: microseconds from fork and exec to the pool's `ready`, from SIGKILL of a worker to its
 * successor's `ready`, or from SIGHUP to `reloaded`. What it has started ends with it. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE = 20000, CREW = 1024 };

static char buffer[65536];
static size_t held;
static int pipe_end;
static pid_t master;
/* The workers that are ready, the longest ready first, and since when. */
static struct { pid_t pid; uint64_t since; } crew[CREW];
static int workers;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void give_up(const char *why) {
    fprintf(stderr, "moments: %s; the last of the log: %.*s\n", why, (int)held, buffer);
    exit(1);
}

/* Forgets a worker that a line says is gone, and remembers one that is ready. */
static void note(const char *line, uint64_t time) {
    const char *pid = strstr(line, " pid=");
    if (!pid || !strstr(line, " worker=")) return;
    if (strstr(line, " ready") && workers < CREW) {
        crew[workers].pid = (pid_t)atol(pid + 5);
        crew[workers++].since = time;
    } else if (strstr(line, " exited ") || strstr(line, " killed ")) {
        for (int i = 0; i < workers; i++)
            if (crew[i].pid == (pid_t)atol(pid + 5)) {
                memmove(&crew[i], &crew[i + 1], (size_t)(workers - i - 1) * sizeof *crew);
                workers--;
                break;
            }
    }
}

/* Reads until a line has both texts; the time at which its end was read. */
static uint64_t line_with(const char *first, const char *second) {
    for (;;) {
        char *end;
        while (!(end = memchr(buffer, '\n', held))) {
            struct pollfd fd = { .fd = pipe_end, .events = POLLIN };
            if (held == sizeof buffer || poll(&fd, 1, PATIENCE) <= 0) give_up("waited in vain");
            ssize_t n = read(pipe_end, buffer + held, sizeof buffer - held);
            if (n <= 0) give_up("the pool has ended");
            held += (size_t)n;
        }
        uint64_t time = now();
        *end = 0;
        note(buffer, time);
        int found = strstr(buffer, first) && strstr(buffer, second);
        held -= (size_t)(end + 1 - buffer);
        memmove(buffer, end + 1, held);
        if (found) return time;
    }
}

static void stop(void) {
    if (master <= 0) return;
    kill(master, SIGINT);
    /* Workers have the pipe open, too: its end is theirs. */
    while (read(pipe_end, buffer, sizeof buffer) > 0) {}
    waitpid(master, 0, 0);
    close(pipe_end);
    master = held = workers = 0;
}

static void start(char **argv) {
    int ends[2];
    if (pipe(ends)) give_up("no pipe");
    master = fork();
    if (master < 0) give_up("no process");
    if (master == 0) {
        prctl(PR_SET_PDEATHSIG, SIGINT);
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        execv(*argv, argv);
        perror(*argv);
        _exit(127);
    }
    close(ends[1]);
    pipe_end = ends[0];
}

static void interrupted(int signal) { exit(128 + signal); }

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    const char *what = argv[1];
    signal(SIGTERM, interrupted);
    signal(SIGINT, interrupted);
    atexit(stop);
    if (strcmp(what, "start")) {
        start(argv + 4);
        line_with("master", " ready workers=");
    }
    for (int i = 0; i < atoi(argv[2]); i++) {
        uint64_t begun, end;
        if (!strcmp(what, "start")) {
            begun = now();
            start(argv + 4);
            end = line_with("master", " ready workers=");
            stop();
        } else if (!strcmp(what, "kill")) {
            /* One that dies within a second of its start is suspected of dying by itself, and its place stays empty. */
            if (workers < atoi(argv[3])) give_up("a worker is missing");
            uint64_t settled = crew[0].since + 1200000, time = now();
            if (time < settled) usleep((useconds_t)(settled - time));
            begun = now();
            kill(crew[0].pid, SIGKILL);
            end = line_with("worker=", " ready");
        } else {
            begun = now();
            kill(master, SIGHUP);
            end = line_with("master", " reloaded");
        }
        printf("%llu\n", (unsigned long long)(end - begun));
        fflush(stdout);
    }
    return 0;
}
