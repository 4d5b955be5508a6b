/*
 * User-mode Linux before 6.x saves the floating point state of its processes in an area sized for older CPUs. On hosts
 * with larger state (AMX), ptrace(PTRACE_SETREGSET, NT_X86_XSTATE) refuses anything but the full size. This wraps
 * ptrace: a short area is put into one of the full size before it goes to the kernel. Elsewhere it changes nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NT_X86_XSTATE 0x202
#define XSTATE_BV_OFFSET 512
#define LEGACY_COMPONENTS 0x3ffUL /* x87 to PKRU: what the short area can hold */

static char area[1 << 16] __attribute__((aligned(64)));
static size_t full_size;

static long set_short_state(long pid, void *type, struct iovec *given)
{
    struct iovec whole = {area, sizeof area};

    if (!full_size) {
        if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, type, &whole) < 0)
            return -1;
        full_size = whole.iov_len;
        memset(area, 0, sizeof area);
    }
    if (given->iov_len >= full_size)
        return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, type, given);
    memcpy(area, given->iov_base, given->iov_len);
    *(unsigned long *)(area + XSTATE_BV_OFFSET) &= LEGACY_COMPONENTS;
    whole.iov_len = full_size;
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, type, &whole);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    long pid;
    void *address, *data;

    va_start(arguments, request);
    pid = va_arg(arguments, int);
    address = va_arg(arguments, void *);
    data = va_arg(arguments, void *);
    va_end(arguments);
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        long value;

        if (syscall(SYS_ptrace, request, pid, address, &value) < 0)
            return -1;
        errno = 0;
        return value;
    }
    if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
        return set_short_state(pid, address, data);
    return syscall(SYS_ptrace, request, pid, address, data);
}
