/* What app.rs does as CGI script, in C: PATH_INFO /hello, /read or anything else, SESSDIR, PAD. */
#include "slots.h"

int main(void) {
    const char *path = getenv("PATH_INFO"), *directory = getenv("SESSDIR"), *cookie = getenv("HTTP_COOKIE");
    const char *pad = getenv("PAD"), *at = cookie ? strstr(cookie, "session=") : 0;
    char id[33] = "", set[128] = "", body[128], out[512];
    long visits = 0;
    if (at && strspn(at + 8, "0123456789abcdef") >= 32) memcpy(id, at + 8, 32);
    if (path && strcmp(path, "/hello")) {
        if (!directory || slots_open(directory) < 0) return 1;
        if (!strcmp(path, "/read")) visits = *id ? slots_read(id) : 0;
        else if (*id) visits = slots_count(id);
        else {
            visits = slots_create(id, pad ? (size_t)atol(pad) : 0) ? -1 : 1;
            sprintf(set, "Set-Cookie: session=%s; HttpOnly; SameSite=Lax; Path=/\r\n", id);
        }
    }
    if (visits < 0) return 1;
    int length = sprintf(body, "visits: %-10ld %.79s\n", visits,
        "-------------------------------------------------------------------------------");
    length = sprintf(out, "Status: 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n%sContent-Length: %d\r\n\r\n%s", set, length, body);
    return write(1, out, (size_t)length) == length ? 0 : 1;
}
