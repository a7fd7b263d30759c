/* dlopen without RTLD_DEEPBIND, which the address sanitizer refuses and OpenVINO's TBB asks for. */
#define _GNU_SOURCE
#include <dlfcn.h>

typedef void *(*Open)(const char *, int);

void *dlopen(const char *file, int flags) {
    return ((Open)dlsym(RTLD_NEXT, "dlopen"))(file, flags & ~RTLD_DEEPBIND);
}
