/* The system calls of the directory store, in C and with nothing around them: a file of two slots of 2048 bytes, read
 * whole; the slot that is not current is written whole. The checksum is a plain sum, only so that the bytes are looked
 * at. What a library does beyond this is what its measurement shows. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CAPACITY = 2048, HEADER = 56 };

struct slot {
    uint64_t sum, sequence, visits, length;
    char pad[CAPACITY - 32];
};

static int slots_dir = -1;

static int slots_open(const char *directory) {
    slots_dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return slots_dir;
}

static uint64_t slot_sum(const struct slot *s) {
    uint64_t sum = s->sequence * 31 + s->visits * 7 + s->length, word;
    for (size_t at = 0; at + 8 <= s->length; at += 8) {
        memcpy(&word, s->pad + at, 8);
        sum += word;
    }
    return sum;
}

static int slot_good(const struct slot *s) {
    return s->sequence && s->length <= sizeof s->pad && s->sum == slot_sum(s);
}

/* The current one of two slots, or -1. */
static int slots_current(const struct slot s[2]) {
    int a = slot_good(&s[0]), b = slot_good(&s[1]);
    if (a && b) return s[1].sequence > s[0].sequence;
    return a ? 0 : b ? 1 : -1;
}

static size_t slot_bytes(const struct slot *s) { return 32 + s->length; }

/* Load, add one, save, under the lock; the new number of visits, or -1. */
static long slots_count(const char *id) {
    struct slot s[2];
    struct stat st;
    long visits = -1;
    int fd = openat(slots_dir, id, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return -1;
    if (!flock(fd, LOCK_EX) && !fstat(fd, &st) && st.st_nlink == 1 && st.st_size == sizeof s
        && pread(fd, s, sizeof s, 0) == (ssize_t)sizeof s) {
        int now = slots_current(s);
        if (now >= 0) {
            struct slot *next = &s[!now];
            uint64_t before = s[now].visits;
            memcpy(next->pad, s[now].pad, s[now].length);
            next->length = s[now].length;
            next->visits = before + 1;
            next->sequence = s[now].sequence + 1;
            next->sum = slot_sum(next);
            if (pwrite(fd, next, slot_bytes(next), now ? 0 : CAPACITY) == (ssize_t)slot_bytes(next))
                visits = (long)(before + 1);
        }
    }
    close(fd);
    return visits;
}

/* The number of visits, without the lock; 0 where there is no session, -1 where something is wrong. */
static long slots_read(const char *id) {
    struct slot s[2];
    struct stat st;
    int now = -1, fd = openat(slots_dir, id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return errno == ENOENT ? 0 : -1;
    if (!fstat(fd, &st) && st.st_nlink == 1 && st.st_size == sizeof s && pread(fd, s, sizeof s, 0) == (ssize_t)sizeof s)
        now = slots_current(s);
    close(fd);
    return now < 0 ? -1 : (long)s[now].visits;
}

/* A new session with so much padding; 0, or -1. */
static int slots_create(char id[33], size_t pad) {
    struct slot s = { .sequence = 1, .visits = 1, .length = (pad + 7) / 8 * 8 };
    unsigned char random[16];
    int fd, good;
    if (s.length > sizeof s.pad || getrandom(random, sizeof random, 0) != sizeof random) return -1;
    for (int i = 0; i < 16; i++) sprintf(id + 2 * i, "%02x", random[i]);
    memset(s.pad, 'x', s.length);
    s.sum = slot_sum(&s);
    fd = openat(slots_dir, id, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return -1;
    good = !flock(fd, LOCK_EX | LOCK_NB) && !fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 2 * CAPACITY)
        && !ftruncate(fd, 2 * CAPACITY) && pwrite(fd, &s, slot_bytes(&s), 0) == (ssize_t)slot_bytes(&s);
    close(fd);
    return good ? 0 : -1;
}

/* What app.rs answers, as CGI response with a status of 200: /hello, /read or anything else. Its length, or -1. */
static inline int slots_answer(const char *path, const char *cookie, char out[512]) {
    const char *at = cookie ? strstr(cookie, "session=") : 0;
    char id[33] = "", set[128] = "", body[128];
    long visits = 0;
    if (at && strspn(at + 8, "0123456789abcdef") >= 32) memcpy(id, at + 8, 32);
    if (!strcmp(path, "/read")) visits = *id ? slots_read(id) : 0;
    else if (strcmp(path, "/hello")) {
        if (*id) visits = slots_count(id);
        else {
            const char *pad = getenv("PAD");
            visits = slots_create(id, pad ? (size_t)atol(pad) : 0) ? -1 : 1;
            sprintf(set, "Set-Cookie: session=%s; HttpOnly; SameSite=Lax; Path=/\r\n", id);
        }
    }
    if (visits < 0) return -1;
    int length = sprintf(body, "visits: %-10ld %.79s\n", visits,
        "-------------------------------------------------------------------------------");
    return sprintf(out, "Status: 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n%sContent-Length: %d\r\n\r\n%s", set, length, body);
}
