/* What store.rs measures, in C:
 *   limit_store gen DIR N BYTES IDFILE     creates N sessions
 *   limit_store DIR IDFILE N rw|ro         N times: lock, load, save; or load
 *   limit_store sweep DIR                  looks at the time of every file
 *   limit_store wake DIR N                 N times: from the end of a lock to its waiter having it
 *   limit_store raw DIR BYTES N            N times: lock, read and write so many bytes, in files that it makes */
#include "slots.h"
#include <dirent.h>
#include <sys/wait.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int report(long count, double began) {
    double seconds = now() - began;
    printf("{\"ops\":%ld,\"secs\":%.4f,\"rate\":%.1f}\n", count, seconds, (double)count / seconds);
    return 0;
}

static int generate(const char *directory, long count, size_t bytes, const char *names) {
    char id[33];
    FILE *f = fopen(names, "w");
    if (!f || slots_open(directory) < 0) return 1;
    while (count-- > 0) {
        if (slots_create(id, bytes) < 0) return 1;
        fprintf(f, "%s\n", id);
    }
    return fclose(f) ? 1 : 0;
}

static int sweep(const char *directory) {
    double began = now();
    DIR *names = opendir(directory);
    struct dirent *entry;
    struct stat st;
    long count = 0, old = 0;
    time_t limit = time(0) - 1800;
    while (names && (entry = readdir(names)))
        if (strlen(entry->d_name) == 32 && !fstatat(dirfd(names), entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) {
            count++;
            old += st.st_mtime < limit;
        }
    return count && !old ? report(count, began) : 1;
}

static int raw(const char *directory, size_t bytes, long count) {
    enum { FILES = 16 };
    char names[FILES][8], *buffer = malloc(bytes);
    if (slots_open(directory) < 0 || !buffer) return 1;
    memset(buffer, 'x', bytes);
    for (int i = 0; i < FILES; i++) {
        sprintf(names[i], "raw%d", i);
        int fd = openat(slots_dir, names[i], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || pwrite(fd, buffer, bytes, 0) != (ssize_t)bytes || close(fd)) return 1;
    }
    double began = now();
    for (long i = 0; i < count; i++) {
        int fd = openat(slots_dir, names[i % FILES], O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || flock(fd, LOCK_EX) || pread(fd, buffer, bytes, 0) != (ssize_t)bytes
            || pwrite(fd, buffer, bytes, 0) != (ssize_t)bytes || close(fd))
            return 1;
    }
    return report(count, began);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int wake(const char *directory, long count) {
    int orders[2], answers[2], fd;
    char order;
    double granted, *times = malloc((size_t)count * sizeof *times);
    if (!times || slots_open(directory) < 0 || pipe(orders) || pipe(answers)) return 1;
    pid_t pid = fork();
    fd = openat(slots_dir, "wake", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (pid < 0 || fd < 0) return 1;
    if (pid == 0) {
        close(orders[1]);
        while (read(orders[0], &order, 1) == 1) {
            if (flock(fd, LOCK_EX)) _exit(1);
            granted = now();
            flock(fd, LOCK_UN);
            if (write(answers[1], &granted, sizeof granted) != sizeof granted) _exit(1);
        }
        _exit(0);
    }
    for (long i = 0; i < count; i++) {
        if (flock(fd, LOCK_EX) || write(orders[1], "x", 1) != 1) return 1;
        usleep(500);
        double released = now();
        flock(fd, LOCK_UN);
        if (read(answers[0], &granted, sizeof granted) != sizeof granted) return 1;
        times[i] = granted - released;
    }
    close(orders[1]);
    waitpid(pid, 0, 0);
    qsort(times, (size_t)count, sizeof *times, ascending);
    return report(1, now() - times[count / 2]);
}

int main(int argc, char **argv) {
    if (argc == 6 && !strcmp(argv[1], "gen")) return generate(argv[2], atol(argv[3]), (size_t)atol(argv[4]), argv[5]);
    if (argc == 3 && !strcmp(argv[1], "sweep")) return sweep(argv[2]);
    if (argc == 4 && !strcmp(argv[1], "wake")) return wake(argv[2], atol(argv[3]));
    if (argc == 5 && !strcmp(argv[1], "raw")) return raw(argv[2], (size_t)atol(argv[3]), atol(argv[4]));
    if (argc != 5 || slots_open(argv[1]) < 0) return 2;
    FILE *f = fopen(argv[2], "r");
    char (*ids)[33] = 0;
    long n = 0, room = 0, count = atol(argv[3]), bad = 0;
    int write = !strcmp(argv[4], "rw");
    for (char id[33]; f && fscanf(f, "%32s", id) == 1; memcpy(ids[n++], id, 33))
        if (n == room && !(ids = realloc(ids, (size_t)(room = 2 * room + 1000) * 33))) return 1;
    if (!n) return 2;
    double began = now();
    for (long i = 0; i < count; i++) bad += (write ? slots_count(ids[i % n]) : slots_read(ids[i % n])) < 1;
    return report(count, began) || bad;
}
