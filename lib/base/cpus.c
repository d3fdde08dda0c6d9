/* SPDX-License-Identifier: MIT
 *
 * How many threads are worth starting? As many as there are CPUs that this process may use, which a batch system,
 * a container or taskset restricts: by a set of CPUs (the affinity mask) or by a share of time (the cgroup's
 * cpu.max). Threads beyond that wait for each other.
 */
#include "base/context.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The start of a small file, as text; "" if it cannot be read. */
static void read_start(const char *path, char *text, size_t room)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const ssize_t got = fd >= 0 ? read(fd, text, room - 1) : 0;
    text[got > 0 ? got : 0] = '\0';
    if (fd >= 0) close(fd);
}

/* "QUOTA PERIOD": so much time of the CPUs in each period; "max PERIOD": no limit. */
static unsigned cpus_of_quota(const char *text)
{
    char *end;
    const unsigned long long quota = strtoull(text, &end, 10);
    const unsigned long long period = strtoull(end, NULL, 10);
    if (*text < '0' || *text > '9' || period == 0 || quota == 0) return UINT_MAX;
    const unsigned long long cpus = quota / period + (quota % period != 0);
    return cpus < UINT_MAX ? (unsigned)cpus : UINT_MAX;
}

/* The limit of a cgroup holds for all groups below it, so the smallest on the way up counts. A name that is not
 * there under `mount` is that of a container's host; what of its way up is there is the container's own. */
unsigned ams_cgroup_cpus(const char *membership, const char *mount)
{
    char groups[PATH_MAX], path[2 * PATH_MAX], text[64];
    read_start(membership, groups, sizeof groups);
    const char *line = strncmp(groups, "0::/", 4) == 0 ? groups : strstr(groups, "\n0::/"); /* of cgroup v2 */
    if (!line) return UINT_MAX;
    char *group = strchr(line, '/');
    group[strcspn(group, "\n")] = '\0';
    for (unsigned least = UINT_MAX;;) {
        char *slash = strrchr(group, '/');
        if (slash && !slash[1]) *slash = '\0'; /* the topmost one */
        ams_format(path, sizeof path, "%s%s/cpu.max", mount, group);
        read_start(path, text, sizeof text);
        const unsigned cpus = cpus_of_quota(text);
        if (cpus < least) least = cpus;
        if (!*group) return least;
        *strrchr(group, '/') = '\0';
    }
}

static unsigned cpus_of_mask(void)
{
    cpu_set_t sets[16]; /* one after the other, for 16384 CPUs: the kernel refuses less than its own number */
    if (sched_getaffinity(0, sizeof sets, sets) == 0) return (unsigned)CPU_COUNT_S(sizeof sets, sets);
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : (unsigned)online;
}

unsigned ams_cpus(void)
{
    const unsigned mask = cpus_of_mask(), share = ams_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    return share < mask ? share : mask;
}
