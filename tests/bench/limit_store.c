/* What store.rs measures, in C: limit_store gen DIR N BYTES IDFILE | limit_store DIR IDFILE N rw|ro */
#include "slots.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    static char ids[10000][33];
    if (argc == 6 && !strcmp(argv[1], "gen")) {
        FILE *f = fopen(argv[5], "w");
        if (!f || slots_open(argv[2]) < 0) return 1;
        for (long i = atol(argv[3]); i-- > 0;) {
            if (slots_create(ids[0], (size_t)atol(argv[4])) < 0) return 1;
            fprintf(f, "%s\n", ids[0]);
        }
        return fclose(f) ? 1 : 0;
    }
    if (argc != 5 || slots_open(argv[1]) < 0) return 2;
    FILE *f = fopen(argv[2], "r");
    long n = 0, count = atol(argv[3]), bad = 0;
    int write = !strcmp(argv[4], "rw");
    while (f && n < 10000 && fscanf(f, "%32s", ids[n]) == 1) n++;
    if (!n) return 2;
    double began = now();
    for (long i = 0; i < count; i++) bad += (write ? slots_count(ids[i % n]) : slots_read(ids[i % n])) < 1;
    double seconds = now() - began;
    printf("{\"ops\":%ld,\"secs\":%.4f,\"rate\":%.1f}\n", count, seconds, (double)count / seconds);
    return bad ? 1 : 0;
}
