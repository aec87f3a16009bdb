// The neighbour that is measured: sleeps until every 10th millisecond, argv[1] times, and in the end
// writes to stdout by how many nanoseconds each time was too late (int64_t each). Static: it runs
// in everybody's sandbox.
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { kMaxTicks = 8000 };  // which a pipe takes at once

static const int64_t kPeriodNs = 10 * 1000 * 1000;
static const int64_t kSecondNs = 1000 * 1000 * 1000;

static int64_t Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kSecondNs + now.tv_nsec;
}

int main(int argc, char** argv) {
  static int64_t late[kMaxTicks];
  const int ticks = argc > 1 ? atoi(argv[1]) : 0;
  if (ticks <= 0 || ticks > kMaxTicks) return 2;
  int64_t due = Now();
  for (int i = 0; i < ticks; ++i) {
    const int64_t now = Now();
    due += kPeriodNs;
    if (due < now) due = now + kPeriodNs;
    const struct timespec until = {due / kSecondNs, due % kSecondNs};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    late[i] = Now() - due;
  }
  const ssize_t size = (ssize_t)(ticks * sizeof(late[0]));
  return write(STDOUT_FILENO, late, size) == size ? 0 : 1;
}
