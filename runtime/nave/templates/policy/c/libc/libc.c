// An allocator, and the few functions that the compiler and the bindings call.
//
// Every call of the policy has an instance of its own, which the host throws away afterwards: so memory is handed out one
// piece after the other and nothing is ever given back. The host bounds how much there is.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE ((size_t)65536)
#define ALIGNMENT ((size_t)16)

// Where the linker says that the heap begins.
extern unsigned char __heap_base;

static uintptr_t next;

// Each piece is preceded by its size, which realloc asks for; the place for it keeps the alignment.
static size_t *size_of(void *memory) { return (size_t *)((uintptr_t)memory - ALIGNMENT); }

void *malloc(size_t size) {
    if (next == 0) next = ((uintptr_t)&__heap_base + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    size_t room = (size_t)__builtin_wasm_memory_size(0) * PAGE - next;
    if (size > SIZE_MAX - PAGE - 2 * ALIGNMENT) return NULL;
    size_t whole = ALIGNMENT + ((size + ALIGNMENT - 1) & ~(ALIGNMENT - 1));
    if (whole > room) {
        size_t pages = (whole - room + PAGE - 1) / PAGE;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) return NULL;
    }
    void *memory = (void *)(next + ALIGNMENT);
    next += whole;
    *size_of(memory) = size;
    return memory;
}

void *realloc(void *old, size_t size) {
    if (old != NULL && size <= *size_of(old)) return old;
    void *memory = malloc(size);
    if (memory != NULL && old != NULL) memcpy(memory, old, *size_of(old));
    return memory;
}

void free(void *memory) { (void)memory; }

void abort(void) { __builtin_trap(); }

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    unsigned char *target = to;
    const unsigned char *source = from;
    for (size_t i = 0; i < size; i++) target[i] = source[i];
    return to;
}

void *memmove(void *to, const void *from, size_t size) {
    unsigned char *target = to;
    const unsigned char *source = from;
    if ((uintptr_t)target <= (uintptr_t)source) {
        for (size_t i = 0; i < size; i++) target[i] = source[i];
    } else {
        for (size_t i = size; i > 0; i--) target[i - 1] = source[i - 1];
    }
    return to;
}

void *memset(void *to, int value, size_t size) {
    unsigned char *target = to;
    for (size_t i = 0; i < size; i++) target[i] = (unsigned char)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t size) {
    const unsigned char *left = a, *right = b;
    for (size_t i = 0; i < size; i++) {
        if (left[i] != right[i]) return left[i] < right[i] ? -1 : 1;
    }
    return 0;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length] != 0) length++;
    return length;
}
