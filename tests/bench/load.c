// The load of the neighbour bench: a fork bomb, a memory bomb, a flood of the page cache and a
// tmpfs that is filled over and over, all at once in one task. How far each has come stands in
// /local/load, as neighbour.cc reads it. Static: it runs in everybody's sandbox.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  kLoads = 4,
  kChunk = 1 << 20,
  kFloodChunks = 256,  // as much as the task may use of memory
};

struct Progress {
  uint64_t forks_refused;
  uint64_t memory_bombs_killed;
  uint64_t flooded_bytes;
  uint64_t tmpfs_filled;  // times
};

static struct Progress* progress;
static char chunk[kChunk];

static void Count(uint64_t* counter, uint64_t more) {
  __atomic_fetch_add(counter, more, __ATOMIC_RELAXED);
}

// Whoever is refused ends, but the first: the others can be born anew, and the loads beside too.
static void ForkBomb(void) {
  const pid_t first = getpid();
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    if (fork() >= 0) continue;
    Count(&progress->forks_refused, 1);
    if (getpid() != first) _exit(0);
  }
}

// The OOM killer's first choice, so that the other loads live on.
static void MemoryBomb(void) {
  const int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (score < 0 || write(score, "1000", 4) != 4) _exit(1);
  for (;;) {
    char* memory =
        mmap(NULL, kChunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) _exit(1);
  }
}

static void PageCacheFlood(void) {
  const int file = open("/local/flood", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) _exit(1);
  for (;;) {
    for (off_t i = 0; i < kFloodChunks; ++i) {
      if (pwrite(file, chunk, kChunk, i * kChunk) != kChunk) _exit(1);
      Count(&progress->flooded_bytes, kChunk);
    }
    for (off_t i = 0; i < kFloodChunks; ++i) (void)!pread(file, chunk, kChunk, i * kChunk);
  }
}

static void TmpfsFill(void) {
  const int file = open("/tmp/fill", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) _exit(1);
  for (;;) {
    while (write(file, chunk, kChunk) > 0) {
    }
    if (errno != ENOSPC || ftruncate(file, 0) != 0) _exit(1);
    Count(&progress->tmpfs_filled, 1);
  }
}

static void (*const loads[kLoads])(void) = {ForkBomb, MemoryBomb, PageCacheFlood, TmpfsFill};

// The fork bomb may have taken the last place.
static pid_t Begin(int load) {
  const struct timespec pause = {0, 1000000};
  for (;;) {
    const pid_t pid = fork();
    if (pid > 0) return pid;
    if (pid == 0) loads[load]();
    nanosleep(&pause, NULL);
  }
}

int main(void) {
  const int file = open("/local/load", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0 || ftruncate(file, sizeof(*progress)) != 0) return 1;
  progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (progress == MAP_FAILED) return 1;
  pid_t running[kLoads];
  for (int load = kLoads - 1; load >= 0; --load) running[load] = Begin(load);
  for (;;) {
    int status;
    const pid_t ended = wait(&status);
    for (int load = 0; load < kLoads; ++load) {
      if (running[load] != ended) continue;
      if (loads[load] == MemoryBomb) Count(&progress->memory_bombs_killed, WIFSIGNALED(status));
      running[load] = Begin(load);
    }
  }
}
