/* A clock that is ahead or behind by $LAB_CLOCK seconds, for every program that is given this library in $LD_PRELOAD.
 *
 * Only the time of day moves. Where a program waits until a moment of that clock, the kernel is told the moment of its own.
 * Nothing here comes from a C library's headers or start files, so that one build fits every libc; the waiting functions
 * it calls exist in glibc since 2.30. Programs that are statically linked, or set-uid, never see it.
 */
typedef long word;
struct timespec { word seconds, nanoseconds; };
struct timeval { word seconds, microseconds; };
struct itimerspec { struct timespec every, first; };

enum { REALTIME = 0, MONOTONIC = 1, REALTIME_COARSE = 5, TAI = 11, ABSOLUTE = 1, TIME_UTC = 1, EINVAL_ = 22 };
#define BILLION 1000000000L
#define NEVER (1L << 56) /* nobody waits for that second: it is asked for to hear of changes, and has no room to add to */
/* A moment this large is of the time of day (2001 and later), a smaller one of a clock that counts from the last boot. */
#define OF_DAY(moment) ((moment)->seconds >= BILLION)
#define LIBRARY __attribute__((visibility("default")))

#if defined(__x86_64__)
enum { CLOCK_GETTIME = 228, CLOCK_NANOSLEEP = 230, TIMERFD_SETTIME = 286 };
static word kernel(word number, word a, word b, word c, word d) {
    register word r10 __asm__("r10") = d;
    word answer;
    __asm__ volatile("syscall" : "=a"(answer) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return answer;
}
#elif defined(__aarch64__)
enum { CLOCK_GETTIME = 113, CLOCK_NANOSLEEP = 115, TIMERFD_SETTIME = 86 };
static word kernel(word number, word a, word b, word c, word d) {
    register word x8 __asm__("x8") = number;
    register word x0 __asm__("x0") = a;
    register word x1 __asm__("x1") = b;
    register word x2 __asm__("x2") = c;
    register word x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#else
#error "only x86-64 and arm64"
#endif

extern char **environ __attribute__((weak));
extern int *__errno_location(void);
extern int pthread_cond_clockwait(void *, void *, int, const struct timespec *) __attribute__((weak));
extern int pthread_mutex_clocklock(void *, int, const struct timespec *) __attribute__((weak));
extern int sem_clockwait(void *, int, const struct timespec *) __attribute__((weak));

static struct timespec ahead; /* nanoseconds are never negative */

/* "-86400" or "+0.5": digits after the ninth are ignored. */
__attribute__((constructor)) static void read_offset(void) {
    static const char name[] = "LAB_CLOCK=";
    for (char **each = environ; each && *each; each++) {
        const char *at = *each, *want = name;
        while (*want && *at == *want) at++, want++;
        if (*want) continue;
        word sign = 1, scale = BILLION;
        if (*at == '-' || *at == '+') sign = *at++ == '-' ? -1 : 1;
        for (; *at >= '0' && *at <= '9'; at++) ahead.seconds = ahead.seconds * 10 + (*at - '0');
        if (*at == '.')
            for (at++; *at >= '0' && *at <= '9' && scale > 1; at++) ahead.nanoseconds += (*at - '0') * (scale /= 10);
        ahead.seconds *= sign;
        if (sign < 0 && ahead.nanoseconds) ahead.seconds--, ahead.nanoseconds = BILLION - ahead.nanoseconds;
        return;
    }
}

static void to_program(struct timespec *moment) {
    moment->seconds += ahead.seconds;
    moment->nanoseconds += ahead.nanoseconds;
    if (moment->nanoseconds >= BILLION) moment->seconds++, moment->nanoseconds -= BILLION;
}

static struct timespec to_kernel(const struct timespec *moment) {
    struct timespec own = *moment;
    if (own.seconds >= NEVER) return own;
    own.seconds -= ahead.seconds;
    own.nanoseconds -= ahead.nanoseconds;
    if (own.nanoseconds < 0) own.seconds--, own.nanoseconds += BILLION;
    return own;
}

static int answer(word said) {
    if (said >= 0) return (int)said;
    *__errno_location() = (int)-said;
    return -1;
}

LIBRARY int clock_gettime(int clock, struct timespec *now) {
    word said = kernel(CLOCK_GETTIME, clock, (word)now, 0, 0);
    if (said == 0 && (clock == REALTIME || clock == REALTIME_COARSE || clock == TAI)) to_program(now);
    return answer(said);
}

LIBRARY int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(REALTIME, &exact);
    if (now) now->seconds = exact.seconds, now->microseconds = exact.nanoseconds / 1000;
    return 0;
}

LIBRARY word time(word *now) {
    struct timespec exact;
    clock_gettime(REALTIME, &exact);
    if (now) *now = exact.seconds;
    return exact.seconds;
}

LIBRARY int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(REALTIME, now) == 0 ? base : 0;
}

LIBRARY int clock_nanosleep(int clock, int how, const struct timespec *until, struct timespec *left) {
    struct timespec own = *until;
    if (how == ABSOLUTE && clock == REALTIME) own = to_kernel(until);
    return (int)-kernel(CLOCK_NANOSLEEP, clock, how, (word)&own, (word)left);
}

LIBRARY int timerfd_settime(int timer, int how, const struct itimerspec *new, struct itimerspec *old) {
    struct itimerspec own = *new;
    if (how & ABSOLUTE && OF_DAY(&new->first)) own.first = to_kernel(&new->first);
    return answer(kernel(TIMERFD_SETTIME, timer, how, (word)&own, (word)old));
}

LIBRARY int pthread_cond_timedwait(void *condition, void *mutex, const struct timespec *until) {
    struct timespec own = OF_DAY(until) ? to_kernel(until) : *until;
    return pthread_cond_clockwait(condition, mutex, OF_DAY(until) ? REALTIME : MONOTONIC, &own);
}

LIBRARY int pthread_mutex_timedlock(void *mutex, const struct timespec *until) {
    struct timespec own = to_kernel(until);
    return pthread_mutex_clocklock(mutex, REALTIME, &own);
}

LIBRARY int sem_timedwait(void *semaphore, const struct timespec *until) {
    struct timespec own = to_kernel(until);
    return sem_clockwait(semaphore, REALTIME, &own);
}
