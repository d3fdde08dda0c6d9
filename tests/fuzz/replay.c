/* SPDX-License-Identifier: MIT
 *
 * Runs a fuzz target once over each given file, and over each file of each given folder. No fuzzer
 * is needed, so every test build keeps the corpus passing.
 */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

static unsigned long count;

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    FZ_CHECK(file && fseek(file, 0, SEEK_END) == 0);
    long size = ftell(file);
    FZ_CHECK(size >= 0 && fseek(file, 0, SEEK_SET) == 0);
    uint8_t *data = malloc(size ? (size_t)size : 1); /* its own block, so that a sanitizer sees its end */
    FZ_CHECK(data && fread(data, 1, (size_t)size, file) == (size_t)size);
    fclose(file);
    fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    count++;
}

static void replay(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder) {
        replay_file(path);
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        char inner[4096];
        if (entry->d_name[0] == '.') continue;
        FZ_CHECK((size_t)snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) < sizeof inner);
        replay_file(inner);
    }
    closedir(folder);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    printf("replayed %lu inputs\n", count);
    return count == 0;
}
