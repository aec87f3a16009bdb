// Asks the kernel something from inside a sandbox and prints the answer.
//   sandbox_probe syscall NUMBER [ARGUMENT...]   "ok" or "errno=N"
//   sandbox_probe i386                           getpid by the 32-bit entry, never allowed
//   sandbox_probe euid                           "euid=N" (run from a set-uid copy)
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace {

int Syscall(int count, char** arguments) {
  long values[7] = {};
  for (int i = 0; i < count && i < 7; ++i) values[i] = strtol(arguments[i], nullptr, 0);
  const long result =
      syscall(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
  if (result < 0) {
    printf("errno=%d\n", errno);
  } else {
    puts("ok");
  }
  return 0;
}

int I386() {
  long result = 20;  // getpid of i386
  asm volatile("int $0x80" : "+a"(result) : : "memory");
  printf("result=%ld\n", result);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc >= 3 && strcmp(argv[1], "syscall") == 0) return Syscall(argc - 2, argv + 2);
  if (argc == 2 && strcmp(argv[1], "i386") == 0) return I386();
  if (argc == 2 && strcmp(argv[1], "euid") == 0) return printf("euid=%u\n", geteuid()) < 0;
  fputs("usage: sandbox_probe syscall N [ARG...] | i386 | euid\n", stderr);
  return 2;
}
