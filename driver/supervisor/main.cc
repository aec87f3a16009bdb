// The program `supervisor`: spawner, supervisors and pid 1 of the sandboxes, forks of each other.
// The plugin starts it from a sealed memfd with one socket at descriptor 3.
#include <linux/close_range.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "driver/base/fault.h"
#include "driver/base/fd.h"
#include "driver/supervisor/spawner.h"

#ifdef __SANITIZE_ADDRESS__
// LeakSanitizer needs ptrace, which a non-dumpable process refuses.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace {

// pid 1's command line is readable in the sandbox, and both areas are inherited by every fork.
void OverwriteCommandLine(int argc, char** argv, char** environment) {
  for (int i = 1; i < argc; ++i) std::memset(argv[i], 0, std::strlen(argv[i]));
  for (char** variable = environment; *variable != nullptr; ++variable) {
    std::memset(*variable, 0, std::strlen(*variable));
  }
  *environment = nullptr;
}

}  // namespace

int main(int argc, char** argv, char** environment) {
  jenkins_agent::KeepFaultVariable();
  OverwriteCommandLine(argc, argv, environment);
  ::syscall(SYS_close_range, jenkins_agent::kSpawnerSocket + 1, ~0u, 0);
  return jenkins_agent::RunSpawner(jenkins_agent::Fd(jenkins_agent::kSpawnerSocket));
}
