/* session optional pam_environment.so FILE: the session gets the variables of FILE, one NAME=value a line, each value as
 * it stands there. pam_env cannot do that: to it a "#" in a value begins a comment, and a backslash at its end goes on
 * with the next line. The file has to be a plain one of the person whose session it is; without it nothing happens. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <security/pam_modules.h>

#define SIZE_LIMIT (4 << 20)

int pam_sm_open_session(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    (void)flags;
    const char *user = NULL;
    if (argc != 1 || pam_get_user(pamh, &user, NULL) != PAM_SUCCESS || user == NULL) return PAM_IGNORE;
    const struct passwd *person = getpwnam(user);
    if (person == NULL) return PAM_IGNORE;
    int handle = open(argv[0], O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (handle < 0) return PAM_IGNORE;
    struct stat about;
    FILE *file = NULL;
    if (fstat(handle, &about) != 0 || !S_ISREG(about.st_mode) || about.st_uid != person->pw_uid ||
        about.st_size > SIZE_LIMIT || (file = fdopen(handle, "r")) == NULL) {
        close(handle);
        return PAM_IGNORE;
    }
    char *line = NULL;
    size_t room = 0;
    for (ssize_t length; (length = getline(&line, &room, file)) > 0;) {
        if (line[length - 1] == '\n') line[length - 1] = '\0';
        const char *equals = strchr(line, '=');
        if (equals != NULL && equals != line) pam_putenv(pamh, line);
    }
    free(line);
    fclose(file);
    return PAM_SUCCESS;
}

int pam_sm_close_session(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    (void)pamh, (void)flags, (void)argc, (void)argv;
    return PAM_SUCCESS;
}
