/* Runs a CGI program N times, one after the other, as a web server does: vfork, execve, a pipe to read.
 * spawn N PROGRAM PATH_INFO SESSDIR [COOKIE] prints {"ops":..,"secs":..,"rate":..,"peak":..}, where peak is the most
 * memory (RSS) of any of them in KiB; built statically, as until exec it is our own. Every answer must begin with a
 * status of 200. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *pair(const char *name, const char *value) {
    char *text;
    return asprintf(&text, "%s=%s", name, value) < 0 ? 0 : text;
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    char *empty[] = { argv[2], 0 };
    char *env[] = { "GATEWAY_INTERFACE=CGI/1.1", "REQUEST_METHOD=GET", "SCRIPT_NAME=", "QUERY_STRING=", "SERVER_NAME=localhost",
        "SERVER_PORT=80", "SERVER_PROTOCOL=HTTP/1.1", "REMOTE_ADDR=127.0.0.1", "HTTP_HOST=localhost",
        pair("REQUEST_URI", argv[3]), pair("PATH_INFO", argv[3]), pair("SESSDIR", argv[4]),
        argc > 5 ? pair("HTTP_COOKIE", argv[5]) : 0, 0 };
    struct timespec a, b;
    long count = atol(argv[1]);
    char out[65536];
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (long i = 0; i < count; i++) {
        int fds[2], status;
        pid_t pid;
        posix_spawn_file_actions_t actions;
        if (pipe2(fds, O_CLOEXEC)) return 1;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
        if (posix_spawn(&pid, argv[2], &actions, 0, empty, env)) return 1;
        posix_spawn_file_actions_destroy(&actions);
        close(fds[1]);
        ssize_t n, total = 0;
        while ((n = read(fds[0], out + total, sizeof out - 1 - (size_t)total)) > 0) total += n;
        close(fds[0]);
        out[total] = 0;
        if (waitpid(pid, &status, 0) != pid || status || strncmp(out, "Status: 200", 11)) {
            fprintf(stderr, "spawn: status %d, answer %s\n", status, out);
            return 1;
        }
        if (count == 1) fputs(out, stderr);
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    double seconds = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    printf("{\"ops\":%ld,\"secs\":%.4f,\"rate\":%.1f,\"peak\":%ld}\n", count, seconds, (double)count / seconds, usage.ru_maxrss);
    return 0;
}
