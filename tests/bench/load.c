/* A closed-loop HTTP/1.1 load client: C connections, each one request at a time, for S seconds.
 *
 *   cc -O2 -pthread -o load load.c
 *   ./load HOST PORT PATH BODIES CONNECTIONS SECONDS
 *
 * BODIES: a file with one JSON body a line; connection i starts at line i and goes round. Prints one JSON object:
 * requests, failed (no answer, or a status other than 2xx), seconds, qps, and latency percentiles in milliseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (1 << 20)

static const char *host, *path;
static int port, connections;
static char **bodies;
static size_t body_count;
static double deadline;

typedef struct {
    int start;
    double *latencies; /* seconds */
    size_t count, room, failed;
} worker;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int dial(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 30};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || inet_pton(AF_INET, host, &to.sin_addr) != 1) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int send_all(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n <= 0) return -1;
        data += n;
        length -= n;
    }
    return 0;
}

/* Reads one answer with a Content-Length. Returns its status, or -1. */
static int receive(int fd, char *buffer) {
    size_t have = 0;
    char *end = NULL;
    while (have < BUFFER - 1) {
        ssize_t n = recv(fd, buffer + have, BUFFER - 1 - have, 0);
        if (n <= 0) return -1;
        have += n;
        buffer[have] = 0;
        if (!end) end = strstr(buffer, "\r\n\r\n");
        if (!end) continue;
        char *field = strcasestr(buffer, "\r\ncontent-length:");
        if (!field || field > end) return -1;
        size_t whole = (end - buffer) + 4 + strtoul(field + 17, NULL, 10);
        if (have >= whole) return atoi(buffer + 9);
    }
    return -1;
}

static void keep(worker *w, double seconds) {
    if (w->count == w->room) {
        w->room = w->room ? 2 * w->room : 4096;
        w->latencies = realloc(w->latencies, w->room * sizeof(double));
        if (!w->latencies) exit(3);
    }
    w->latencies[w->count++] = seconds;
}

static void *work(void *argument) {
    worker *w = argument;
    char *buffer = malloc(BUFFER), *request = malloc(BUFFER);
    int fd = dial();
    if (!buffer || !request) exit(3);
    for (size_t i = w->start; now() < deadline; i += connections) {
        const char *body = bodies[i % body_count];
        int length = snprintf(request, BUFFER,
                              "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
                              "Content-Length: %zu\r\n\r\n%s",
                              path, host, strlen(body), body);
        double began = now();
        int status = fd < 0 || length >= BUFFER || send_all(fd, request, length) ? -1 : receive(fd, buffer);
        if (status >= 200 && status < 300) {
            keep(w, now() - began);
            continue;
        }
        w->failed++;
        if (status < 0) {
            if (fd >= 0) close(fd);
            usleep(1000);
            fd = dial();
        }
    }
    if (fd >= 0) close(fd);
    free(buffer);
    free(request);
    return NULL;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void read_bodies(const char *file) {
    FILE *in = fopen(file, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    if (!in) {
        perror(file);
        exit(2);
    }
    while ((length = getline(&line, &room, in)) > 0) {
        if (line[length - 1] == '\n') line[length - 1] = 0;
        bodies = realloc(bodies, (body_count + 1) * sizeof *bodies);
        if (!bodies || !(bodies[body_count++] = strdup(line))) exit(3);
    }
    free(line);
    fclose(in);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: %s HOST PORT PATH BODIES CONNECTIONS SECONDS\n", argv[0]);
        return 2;
    }
    host = argv[1], port = atoi(argv[2]), path = argv[3], connections = atoi(argv[5]);
    read_bodies(argv[4]);
    if (!body_count || connections < 1 || connections > 1024) return 2;
    worker *workers = calloc(connections, sizeof *workers);
    pthread_t *threads = calloc(connections, sizeof *threads);
    double began = now();
    deadline = began + atof(argv[6]);
    for (int i = 0; i < connections; i++) {
        workers[i].start = i;
        if (pthread_create(&threads[i], NULL, work, &workers[i])) return 3;
    }
    size_t count = 0, failed = 0;
    for (int i = 0; i < connections; i++) pthread_join(threads[i], NULL), count += workers[i].count;
    double seconds = now() - began, *all = malloc((count + 1) * sizeof *all);
    size_t at = 0;
    for (int i = 0; i < connections; i++) {
        if (workers[i].count) memcpy(all + at, workers[i].latencies, workers[i].count * sizeof *all);
        at += workers[i].count;
        failed += workers[i].failed;
    }
    qsort(all, count, sizeof *all, ascending);
#define MS(q) (count ? 1e3 * all[(size_t)((q) * (count - 1))] : -1.0)
    printf("{\"requests\": %zu, \"failed\": %zu, \"seconds\": %.3f, \"qps\": %.2f, \"p50_ms\": %.4f, "
           "\"p90_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f}\n",
           count, failed, seconds, count / seconds, MS(0.5), MS(0.9), MS(0.99), MS(1.0));
    return 0;
}
