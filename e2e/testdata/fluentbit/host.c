/*
 * Plays Fluent Bit for one output plugin: it loads the shared library and calls
 * it in the order, and by the structures, in which Fluent Bit does.
 *
 *   host PLUGIN TAG CHUNK [KEY=VALUE]...
 *
 * It prints what each call returned, one on a line. The chunk is flushed twice,
 * as after an answer that got lost. Exit code 0 says that all calls could be
 * made, not what they returned.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What the plugin fills in when it registers. Fluent Bit's own is longer. */
struct definition {
    int type;
    int proxy;
    int flags;
    char *name;
    char *description;
    void *unused[8];
};

/* What it gets for an [OUTPUT]: the functions it may call, the section that it
 * hands back to them, and a place for a pointer of its own. */
struct api {
    char *(*output_property)(char *key, void *section);
    void *unused[8];
};

struct context {
    void *remote;
};

struct output {
    char *name;
    struct api *api;
    void *section;
    struct context *context;
};

struct section {
    int count;
    char **pairs; /* KEY=VALUE */
};

/* Keys are compared without regard to case; NULL is one that is not set. */
static char *property(char *key, void *of)
{
    struct section *section = of;
    size_t length = strlen(key);

    for (int i = 0; i < section->count; i++) {
        char *pair = section->pairs[i];
        if (strncasecmp(pair, key, length) == 0 && pair[length] == '=') {
            return pair + length + 1;
        }
    }
    return NULL;
}

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "host: %s: %s\n", what, why);
    exit(1);
}

static void *symbol(void *library, const char *name)
{
    void *s = dlsym(library, name);

    if (s == NULL) {
        fail("the plugin lacks a symbol", name);
    }
    return s;
}

/* The file in memory, of its size exactly, so that a reader beyond it is found. */
static char *contents(const char *path, long *size)
{
    FILE *f = fopen(path, "rb");
    char *data;

    if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (*size = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) != 0) {
        fail("cannot read", path);
    }
    data = malloc(*size > 0 ? (size_t)*size : 1);
    if (data == NULL || fread(data, 1, (size_t)*size, f) != (size_t)*size) {
        fail("cannot read", path);
    }
    fclose(f);
    return data;
}

int main(int argc, char **argv)
{
    int (*enroll)(void *);
    int (*init)(void *);
    int (*flush)(void *, const void *, int, const char *);
    int (*leave)(void *);
    struct definition definition = {0};
    struct api api = {0};
    struct context context = {0};
    struct section section;
    struct output output;
    void *library;
    char *chunk;
    long size;
    int answer;

    if (argc < 4) {
        fail("usage", "host PLUGIN TAG CHUNK [KEY=VALUE]...");
    }
    library = dlopen(argv[1], RTLD_LAZY | RTLD_LOCAL);
    if (library == NULL) {
        fail("cannot load the plugin", dlerror());
    }
    *(void **)&enroll = symbol(library, "FLBPluginRegister");
    *(void **)&init = symbol(library, "FLBPluginInit");
    *(void **)&flush = symbol(library, "FLBPluginFlushCtx");
    *(void **)&leave = symbol(library, "FLBPluginExitCtx");
    symbol(library, "FLBPluginExit");

    answer = enroll(&definition);
    printf("register %d: %s, type %d, proxy %d\n", answer, definition.name, definition.type, definition.proxy);

    section.count = argc - 4;
    section.pairs = argv + 4;
    api.output_property = property;
    output.name = definition.name;
    output.api = &api;
    output.section = &section;
    output.context = &context;
    answer = init(&output);
    printf("init %d\n", answer);
    if (answer <= 0) {
        return 0; /* Fluent Bit would not start */
    }

    chunk = contents(argv[3], &size);
    for (int i = 0; i < 2; i++) {
        printf("flush %d\n", flush(context.remote, chunk, (int)size, argv[2]));
    }
    free(chunk);
    printf("exit %d\n", leave(context.remote));
    return 0;
}
