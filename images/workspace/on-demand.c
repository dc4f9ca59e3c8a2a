/* on-demand [--now] SOCKET GROUP COMMAND [ARG …]
 *
 * Listens on a unix socket, and becomes COMMAND when its first client comes; --now does not wait for one. COMMAND takes
 * over the listening socket, with the clients that wait there, the way systemd hands sockets over (LISTEN_FDS), so what
 * nobody uses costs nothing and nobody comes too early. Run by a supervisor: whatever fails, it says so and ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_DESCRIPTOR 3 /* where systemd's protocol begins */

static void fail(const char *what) {
    fprintf(stderr, "on-demand: %s: %s\n", what, strerror(errno));
    exit(111);
}

static int listen_at(const char *path, const char *group_name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        fail(path);
    }
    strcpy(address.sun_path, path);
    const struct group *group = getgrnam(group_name);
    if (group == NULL) fail(group_name);
    const int listening = socket(AF_UNIX, SOCK_STREAM, 0);
    if (listening < 0) fail("socket");
    unlink(path);                      /* a predecessor's */
    const mode_t before = umask(0117); /* 0660 from its first moment on */
    if (bind(listening, (struct sockaddr *)&address, sizeof address) < 0) fail(path);
    umask(before);
    if (chown(path, 0, group->gr_gid) < 0 || listen(listening, SOMAXCONN) < 0) fail(path);
    return listening;
}

int main(int count, char **words) {
    const int now = count > 1 && strcmp(words[1], "--now") == 0;
    char **rest = words + 1 + now;
    if (count - 1 - now < 3) {
        fprintf(stderr, "usage: on-demand [--now] SOCKET GROUP COMMAND [ARG ...]\n");
        return 64;
    }
    const int listening = listen_at(rest[0], rest[1]);
    struct pollfd client = {.fd = listening, .events = POLLIN};
    while (!now && poll(&client, 1, -1) < 0)
        if (errno != EINTR) fail("poll");

    if (listening != FIRST_DESCRIPTOR && (dup2(listening, FIRST_DESCRIPTOR) < 0 || close(listening) < 0)) fail("dup2");
    char own[32];
    snprintf(own, sizeof own, "%ld", (long)getpid());
    if (setenv("LISTEN_PID", own, 1) < 0 || setenv("LISTEN_FDS", "1", 1) < 0) fail("setenv");
    execvp(rest[2], rest + 2);
    fail(rest[2]);
}
