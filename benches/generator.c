// A small closed-/open-loop load generator for RESP and memcached-text servers.
// cc -O2 -o generator generator.c -lpthread
// generator -p PORT [-h 127.0.0.1] [-c conns] [-P pipeline] [-n max_requests] [-t max_seconds]
//      [-r keyspace] [-d value_bytes] [-m resp|mc] [-T threads] [-R rate req/s, open loop] [-s seed]
//      -q "WEIGHT:COMMAND words with {r} {s} {d}"   (repeat for a mix) [-l "1:COMMAND" the last request of each pipeline]
// {r}: 10-digit uniform random < keyspace; {s}: 10-digit sequence number; {d}: value bytes.
// Like redis-benchmark a connection writes P requests at once, then waits for P replies.
// Prints one JSON line. Latency: from the write (closed loop) or from the intended send time
// (open loop: no coordinated omission) to the read that completed each reply.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// Words of a query, and places of it that differ from request to request.
enum { WORDS_MAX = 4096 };
typedef struct {
    int off, kind;
} Slot; // kind 0 rand, 1 seq, 2 data
typedef struct {
    char *b;
    int len;
    Slot sl[WORDS_MAX];
    int ns;
    int w;
    int isget;
} Tmpl;
static Tmpl T[16];
static int nT, wsum;
static int last = -1; // which of them ends each pipeline, and is not in the mix
static int conns = 50, P = 1, mc = 0, nthr = 1, port;
static const char *host = "127.0.0.1";
static long maxn = 1L << 62, keyspace = 1000000, dsz = 64;
static double maxt = 1e9, rate = 0;
static uint64_t seed = 1;
static char *pool;
enum { POOL = 1 << 16 };
static volatile long seqno;
static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

enum { HB = 64 * 40 };
typedef struct {
    uint64_t h[HB], n, max;
    double sum;
} Hist;
static int hidx(uint64_t v) {
    if (v < 64)
        return v;
    int e = 63 - __builtin_clzll(v);
    int i = (e - 5) * 64 + (int)((v >> (e - 6)) & 63);
    return i < HB ? i : HB - 1;
}
static double hval(int i) {
    if (i < 64)
        return i;
    int e = i / 64 + 5;
    return (double)((1ull << e) + ((uint64_t)(i % 64) << (e - 6))) + (1ull << (e - 6)) / 2.0;
}
static void hadd(Hist *h, uint64_t v, uint64_t k) {
    h->h[hidx(v)] += k;
    h->n += k;
    h->sum += (double)v * k;
    if (v > h->max)
        h->max = v;
}
static double hpct(Hist *h, double p) {
    uint64_t t = (uint64_t)(h->n * p), c = 0;
    for (int i = 0; i < HB; i++) {
        c += h->h[i];
        if (c > t)
            return hval(i);
    }
    return h->max;
}

typedef struct {
    int fd, want, llen, busy, inq;
    long skip, pend;
    int gotval;
    char line[64];
    char *out;
    size_t olen, ooff;
    uint64_t t0;
} Conn;
typedef struct {
    pthread_t th;
    int id, nc;
    long quota;
    Hist h;
    long done, errs, miss;
    char err[128];
    uint64_t rng;
    double cpu;
    uint64_t tstart, tend;
} Thr;

static void add_tmpl(const char *spec) {
    Tmpl *t = &T[nT++];
    char *s = strdup(spec), *c = strchr(s, ':');
    t->w = atoi(s);
    if (!c) {
        fprintf(stderr, "bad -q\n");
        exit(2);
    }
    c++;
    char *words[WORDS_MAX] = {0};
    int nw = 0;
    for (char *p = strtok(c, " "); p; p = strtok(NULL, " ")) {
        if (nw == WORDS_MAX) {
            fprintf(stderr, "-q has more than %d words\n", WORDS_MAX);
            exit(2);
        }
        words[nw++] = p;
    }
    t->b = malloc(4096 + (dsz + 64) * nw);
    t->isget = !strncasecmp(words[0], "get", 3);
    char *o = t->b;
    if (!mc)
        o += sprintf(o, "*%d\r\n", nw);
    for (int i = 0; i < nw; i++) {
        char tmp[1 << 20];
        int n = 0;
        Slot ls[8];
        int nl = 0;
        for (char *p = words[i]; *p;) {
            if (p[0] == '{' && p[1] && p[2] == '}') {
                int k = p[1] == 'r' ? 0 : p[1] == 's' ? 1 : 2;
                ls[nl].off = n;
                ls[nl++].kind = k;
                int l = k == 2 ? dsz : 10;
                memset(tmp + n, '0', l);
                n += l;
                p += 3;
            } else if (mc && p[0] == '\\' && p[1] == 'n') {
                tmp[n++] = '\r';
                tmp[n++] = '\n';
                p += 2;
            } else
                tmp[n++] = *p++;
        }
        if (!mc)
            o += sprintf(o, "$%d\r\n", n);
        else if (i && !(o[-1] == '\n'))
            *o++ = ' ';
        for (int j = 0; j < nl; j++) {
            t->sl[t->ns] = ls[j];
            t->sl[t->ns++].off += o - t->b;
        }
        memcpy(o, tmp, n);
        o += n;
        if (!mc) {
            *o++ = '\r';
            *o++ = '\n';
        }
    }
    if (mc) {
        *o++ = '\r';
        *o++ = '\n';
    }
    t->len = o - t->b;
    wsum += t->w;
    free(s);
}
static inline uint64_t rnd(uint64_t *x) {
    uint64_t z = (*x += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}
static inline void put10(char *p, uint64_t v) {
    for (int i = 9; i >= 0; i--) {
        p[i] = '0' + v % 10;
        v /= 10;
    }
}

static void build(Thr *t, Conn *c, int k) {
    char *o = c->out;
    for (int i = 0; i < k; i++) {
        int j = 0;
        if (last >= 0 && i == k - 1) {
            j = last;
        } else if (nT > 1) {
            int w = rnd(&t->rng) % wsum;
            while (w >= T[j].w)
                w -= T[j++].w;
        }
        Tmpl *m = &T[j];
        memcpy(o, m->b, m->len);
        long s = -1;
        for (int q = 0; q < m->ns; q++) {
            if (m->sl[q].kind == 0)
                put10(o + m->sl[q].off, ((__uint128_t)rnd(&t->rng) * keyspace) >> 64);
            else if (m->sl[q].kind == 1) {
                if (s < 0)
                    s = __sync_fetch_and_add(&seqno, 1);
                put10(o + m->sl[q].off, s);
            } else {
                long l = dsz, d = m->sl[q].off;
                while (l > 0) {
                    long x = l < POOL / 2 ? l : POOL / 2;
                    memcpy(o + d, pool + (rnd(&t->rng) % (POOL / 2)), x);
                    l -= x;
                    d += x;
                }
            }
        }
        o += m->len;
    }
    c->olen = o - c->out;
    c->ooff = 0;
    c->want = k;
    c->pend = 1;
}
static int flush_out(Conn *c) {
    while (c->ooff < c->olen) {
        ssize_t n = send(c->fd, c->out + c->ooff, c->olen - c->ooff, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN)
                return 0;
            perror("send");
            exit(3);
        }
        c->ooff += n;
    }
    return 1;
}
static int feed(Thr *t, Conn *c, char *p, long n) { // returns replies completed
    char *e = p + n;
    int done = 0;
    while (p < e) {
        if (c->skip) {
            long k = c->skip < e - p ? c->skip : e - p;
            p += k;
            c->skip -= k;
            if (!c->skip && !mc && --c->pend == 0) {
                done++;
                c->pend = 1;
            }
            continue;
        }
        char *nl = memchr(p, '\n', e - p), *L;
        long ll = (nl ? nl + 1 : e) - p;
        if (!nl || c->llen) {
            int k = ll < 63 - c->llen ? ll : 63 - c->llen;
            memcpy(c->line + c->llen, p, k);
            c->llen += k;
            c->line[c->llen] = 0;
            if (!nl)
                break;
            L = c->line;
            c->llen = 0;
        } else
            L = p;
        p = nl + 1;
        if (mc) {
            if (L[0] == 'V') {
                char *q = strchr(L + 6, ' ');
                q = strchr(q + 1, ' ');
                c->skip = atol(q + 1) + 2;
                c->gotval = 1;
                continue;
            }
            if (L[0] == 'E' && L[1] == 'N') {
                if (!c->gotval)
                    t->miss++;
            } else if (L[0] != 'S' || L[1] != 'T') {
                if (!t->errs++)
                    snprintf(t->err, 100, "%.60s", L);
            }
            c->gotval = 0;
            done++;
            continue;
        }
        switch (L[0]) {
        case '-':
            if (!t->errs++) {
                int k = 0;
                while (k < 90 && L[k] != '\r' && L[k] != '\n' && L[k]) {
                    t->err[k] = L[k] == '"' ? '\'' : L[k];
                    k++;
                }
                t->err[k] = 0;
            }
            c->pend--;
            break;
        case '$':
        case '=':
        case '!': {
            long k = atol(L + 1);
            if (k >= 0) {
                c->skip = k + 2;
                continue;
            }
            t->miss++;
            c->pend--;
            break;
        }
        case '*':
        case '~':
        case '>': {
            long k = atol(L + 1);
            c->pend += (k > 0 ? k : 0) - 1;
            break;
        }
        case '%': {
            long k = atol(L + 1);
            c->pend += 2 * (k > 0 ? k : 0) - 1;
            break;
        }
        default:
            c->pend--;
        }
        if (c->pend == 0) {
            done++;
            c->pend = 1;
        }
    }
    return done;
}
static void *worker(void *a) {
    Thr *t = a;
    int ep = epoll_create1(0);
    Conn *C = calloc(t->nc, sizeof *C);
    long mx = 0;
    for (int i = 0; i < nT; i++)
        if (T[i].len > mx)
            mx = T[i].len;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &sa.sin_addr);
    for (int i = 0; i < t->nc; i++) {
        Conn *c = &C[i];
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (void *)&sa, sizeof sa)) {
            perror("connect");
            exit(3);
        }
        int one = 1;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        c->out = malloc(mx * P + 16);
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
    }
    char *buf = malloc(1 << 18);
    struct epoll_event evs[1024];
    long sent = 0, inflight = 0;
    uint64_t st = now(), end = st + (uint64_t)(maxt * 1e9);
    t->tstart = st;
    double iv = rate > 0 ? 1e9 * P * nthr / rate : 0;
    uint64_t k = 0;
    Conn **idle = malloc(sizeof(Conn *) * t->nc);
    int ni = 0;
    for (int i = t->nc - 1; i >= 0; i--)
        idle[ni++] = &C[i];
    int stop = 0;
    while (1) {
        uint64_t ts = now();
        if (ts >= end || sent >= t->quota)
            stop = 1;
        while (!stop && ni && (rate == 0 || (double)(ts - st) >= k * iv)) {
            Conn *c = idle[--ni];
            long b = t->quota - sent < P ? t->quota - sent : P;
            if (b <= 0) {
                ni++;
                stop = 1;
                break;
            }
            build(t, c, b);
            sent += b;
            inflight++;
            c->t0 = rate > 0 ? st + (uint64_t)(k * iv) : now();
            k++;
            if (!flush_out(c)) {
                struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
                epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
                c->inq = 1;
            }
        }
        if (stop && !inflight)
            break;
        int n = epoll_wait(ep, evs, 1024, rate > 0 && !stop ? 0 : 1000);
        for (int i = 0; i < n; i++) {
            Conn *c = evs[i].data.ptr;
            if ((evs[i].events & EPOLLOUT) && c->inq && flush_out(c)) {
                struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
                c->inq = 0;
            }
            if (!(evs[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                continue;
            ssize_t r = recv(c->fd, buf, 1 << 18, 0);
            if (r <= 0) {
                if (r < 0 && errno == EAGAIN)
                    continue;
                fprintf(stderr, "connection closed\n");
                exit(4);
            }
            uint64_t te = now();
            int d = feed(t, c, buf, r);
            if (d) {
                hadd(&t->h, te > c->t0 ? te - c->t0 : 0, d);
                t->done += d;
                c->want -= d;
                if (c->want == 0) {
                    inflight--;
                    idle[ni++] = c;
                }
            }
        }
    }
    t->tend = now();
    struct rusage ru;
    getrusage(RUSAGE_THREAD, &ru);
    t->cpu = ru.ru_utime.tv_sec + ru.ru_stime.tv_sec + (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
    return NULL;
}
int main(int argc, char **argv) {
    int o;
    char *qs[16], *ql = NULL;
    int nq = 0;
    while ((o = getopt(argc, argv, "h:p:c:P:n:t:r:d:m:T:R:s:q:l:")) != -1)
        switch (o) {
        case 'h':
            host = optarg;
            break;
        case 'p':
            port = atoi(optarg);
            break;
        case 'c':
            conns = atoi(optarg);
            break;
        case 'P':
            P = atoi(optarg);
            break;
        case 'n':
            maxn = atol(optarg);
            break;
        case 't':
            maxt = atof(optarg);
            break;
        case 'r':
            keyspace = atol(optarg);
            break;
        case 'd':
            dsz = atol(optarg);
            break;
        case 'm':
            mc = !strcmp(optarg, "mc");
            break;
        case 'T':
            nthr = atoi(optarg);
            break;
        case 'R':
            rate = atof(optarg);
            break;
        case 's':
            seed = atol(optarg);
            break;
        case 'q':
            qs[nq++] = optarg;
            break;
        case 'l':
            ql = optarg;
            break;
        default:
            return 2;
        }
    for (int i = 0; i < nq; i++)
        add_tmpl(qs[i]);
    if (ql) {
        int mix = wsum;
        last = nT;
        add_tmpl(ql);
        wsum = mix;
    }
    if (!nT || !port) {
        fprintf(stderr, "need -p and -q\n");
        return 2;
    }
    pool = malloc(POOL);
    uint64_t x = 42;
    for (int i = 0; i < POOL; i++)
        pool[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[rnd(&x) & 63];
    Thr *th = calloc(nthr, sizeof *th);
    uint64_t t0 = now();
    for (int i = 0; i < nthr; i++) {
        th[i].nc = conns / nthr + (i < conns % nthr);
        th[i].quota = maxn / nthr + (i < maxn % nthr);
        th[i].rng = seed * 7919 + i * 104729 + 17;
        pthread_create(&th[i].th, 0, worker, &th[i]);
    }
    Hist H = {0};
    long done = 0, errs = 0, miss = 0;
    double cpu = 0;
    uint64_t te = 0;
    char *er = "";
    for (int i = 0; i < nthr; i++) {
        pthread_join(th[i].th, 0);
        for (int j = 0; j < HB; j++)
            H.h[j] += th[i].h.h[j];
        H.n += th[i].h.n;
        H.sum += th[i].h.sum;
        if (th[i].h.max > H.max)
            H.max = th[i].h.max;
        done += th[i].done;
        errs += th[i].errs;
        miss += th[i].miss;
        cpu += th[i].cpu;
        if (th[i].errs)
            er = th[i].err;
        if (th[i].tend > te)
            te = th[i].tend;
    }
    double s = (te - t0) / 1e9;
    printf("{\"requests\":%ld,\"seconds\":%.4f,\"rps\":%.0f,\"mean_us\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_"
           "us\":%.1f,\"max_us\":%.1f,\"errors\":%ld,\"misses\":%ld,\"client_cpu_s\":%.3f,\"client_util\":%.3f,"
           "\"err\":\"%s\"}\n",
           done, s, done / s, H.n ? H.sum / H.n / 1e3 : 0, hpct(&H, .5) / 1e3, hpct(&H, .99) / 1e3,
           hpct(&H, .999) / 1e3, H.max / 1e3, errs, miss, cpu, cpu / s / nthr, er);
    return errs ? 5 : 0;
}
