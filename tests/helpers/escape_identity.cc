#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/helpers/escape.h"

namespace jenkins_agent::escape {

namespace {

std::string SetAllCapabilities() {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2] = {{~0u, ~0u, ~0u}, {~0u, ~0u, ~0u}};
  return Answer(::syscall(SYS_capset, &header, data));
}

std::string RaiseAmbient() {
  return Answer(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0));
}

std::string Securebits() { return Answer(::prctl(PR_SET_SECUREBITS, SECBIT_NOROOT, 0, 0, 0)); }

std::string NewPrivileges() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0) return "done";
  return ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? "kept" : "off";
}

std::string SetGroups() {
  const gid_t root = 0;
  return Answer(::setgroups(1, &root));
}

uint64_t EffectiveCapabilities() {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2] = {};
  ::syscall(SYS_capget, &header, data);
  return data[0].effective | static_cast<uint64_t>(data[1].effective) << 32;
}

// A copy of this program that the test made privileged.
std::string RunPrivileged(const char* path) {
  const std::string before = std::to_string(EffectiveCapabilities());
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl(path, path, "has-gained", before.c_str(), static_cast<char*>(nullptr));
    ::_exit(errno);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status)) return "signalled";
  switch (WEXITSTATUS(status)) {
    case 0:
      return "gained";
    case 1:
      return "nothing-gained";
    default:
      return ErrnoName(WEXITSTATUS(status));
  }
}

std::string RaiseOpenFiles() {
  rlimit limit = {};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max == RLIM_INFINITY) return "unlimited";
  limit.rlim_max += 1;
  return Answer(::setrlimit(RLIMIT_NOFILE, &limit));
}

std::string Schedule(int policy) {
  const sched_param parameters = {.sched_priority = 1};
  return Answer(::sched_setscheduler(0, policy, &parameters));
}

std::string LowerOomScore() {
  const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoName(errno);
  return Answer(::write(fd, "-1000", 5));
}

// On a terminal of the payload's own making, as the operator's session would have one.
std::string TerminalRequest(unsigned long request) {
  const int master = ::open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  const int unlocked = 0;
  if (master < 0 || ::ioctl(master, TIOCSPTLCK, &unlocked) != 0) return "no-terminal";
  const int terminal = ::ioctl(master, TIOCGPTPEER, O_RDWR | O_CLOEXEC);
  if (::ioctl(terminal, TIOCSCTTY, 0) != 0) return "not-controlling";
  char byte = 'x';
  return Answer(::ioctl(terminal, request, &byte));
}

std::string ListenForCalls() {
  sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const sock_fprog program = {1, &allow};
  return Answer(
      ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

}  // namespace

bool HasGained(const char* before) {
  return ::geteuid() != ::getuid() ||
         (EffectiveCapabilities() & ~std::strtoull(before, nullptr, 10)) != 0;
}

Attempts IdentityAttempts() {
  return {
      {"SetAllCapabilities", SetAllCapabilities},
      {"RaiseAmbient", RaiseAmbient},
      {"Securebits", Securebits},
      {"NewPrivileges", NewPrivileges},
      {"BecomeRoot", [] { return Answer(::setuid(0)); }},
      {"BecomeRootEffectively", [] { return Answer(::syscall(SYS_setresuid, -1, 0, -1)); }},
      {"BecomeRootsGroup", [] { return Answer(::setgid(0)); }},
      {"BecomeAnother", [] { return Answer(::setuid(1)); }},
      {"SetGroups", SetGroups},
      {"RunSetUidProgram", [] { return RunPrivileged("/local/set-uid"); }},
      {"RunCapableProgram", [] { return RunPrivileged("/local/capable"); }},
      {"RaiseOpenFiles", RaiseOpenFiles},
      {"RealtimeScheduling", [] { return Schedule(SCHED_FIFO); }},
      {"HigherPriority", [] { return Answer(::setpriority(PRIO_PROCESS, 0, -20)); }},
      {"RealtimeIo", [] { return Answer(::syscall(SYS_ioprio_set, 1, 0, 1 << 13)); }},
      {"LowerOomScore", LowerOomScore},
      {"TypeIntoTerminal", [] { return TerminalRequest(TIOCSTI); }},
      {"PasteIntoTerminal", [] { return TerminalRequest(TIOCLINUX); }},
      {"ListenForCalls", ListenForCalls},
  };
}

}  // namespace jenkins_agent::escape
