// What the bindings need of a C library; see libc.c.
#ifndef POLICY_STDLIB_H
#define POLICY_STDLIB_H

#include <stddef.h>

void *malloc(size_t size);
void *realloc(void *old, size_t size);
void free(void *memory);
_Noreturn void abort(void);

#endif
