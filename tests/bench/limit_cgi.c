/* What app.rs does as CGI script, in C: PATH_INFO /hello, /read or anything else, SESSDIR, PAD. */
#include "slots.h"

int main(void) {
    const char *path = getenv("PATH_INFO"), *directory = getenv("SESSDIR");
    char out[512];
    if (!path || (strcmp(path, "/hello") && (!directory || slots_open(directory) < 0))) return 1;
    int length = slots_answer(path, getenv("HTTP_COOKIE"), out);
    return length > 0 && write(1, out, (size_t)length) == length ? 0 : 1;
}
