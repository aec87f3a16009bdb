// The first process of the sandbox, its supervisor and other processes of the host.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "tests/helpers/escape.h"

namespace jenkins_agent::escape {
namespace {

pid_t HostPid() { return ::atoi(Told("ESCAPE_HOST_PID").c_str()); }

// Not of an attempt before, which pid 1 has yet to reap.
bool IsAlive(const char* pid) {
  FILE* stat = ::fopen((std::string("/proc/") + pid + "/stat").c_str(), "re");
  if (stat == nullptr) return false;
  char state = 'X';
  const bool known = ::fscanf(stat, "%*d (%*[^)]) %c", &state) == 1;
  ::fclose(stat);
  return known && state != 'Z' && state != 'X';
}

// This one, what started it, and pid 1.
std::string CountProcesses() {
  DIR* processes = ::opendir("/proc");
  if (processes == nullptr) return ErrnoName(errno);
  int count = 0;
  while (const dirent* entry = ::readdir(processes)) {
    count += ::atoi(entry->d_name) > 0 && IsAlive(entry->d_name);
  }
  return count == 3 ? "own" : std::to_string(count);
}

std::string Kill(pid_t pid, int signal) { return Answer(::kill(pid, signal)); }

// Bit n - 1: pid 1 has a handler for signal n.
uint64_t CaughtByPidOne() {
  FILE* file = ::fopen("/proc/1/status", "re");
  uint64_t caught = 0;
  char line[256];
  while (file != nullptr && ::fgets(line, sizeof(line), file) != nullptr) {
    if (::strncmp(line, "SigCgt:", 7) == 0) caught = ::strtoull(line + 7, nullptr, 16);
  }
  return caught;
}

// "EPERM" only when that is the answer to each signal. "done" may not end it: the kernel keeps what
// pid 1 does not catch from it (pid_namespaces(7)). It catches none, but its sanitizers do, and
// root may signal root.
std::string KillPidOneByAnySignal() {
  const uint64_t spared = ::geteuid() == 0 ? CaughtByPidOne() : 0;
  std::string word;
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    if (((spared >> (signal - 1)) & 1) != 0) continue;
    const std::string answer = Kill(1, signal);
    if (answer == "EINVAL") continue;  // 32 and 33 are the C library's
    if (!word.empty() && word != answer) return word + "/" + answer;
    word = answer;
  }
  return word;
}

int PidfdOfPidOne() { return static_cast<int>(::syscall(SYS_pidfd_open, 1, 0)); }

std::string PidfdSignal() {
  return Answer(::syscall(SYS_pidfd_send_signal, PidfdOfPidOne(), SIGKILL, nullptr, 0));
}

std::string Ptrace(pid_t pid, int request) {
  return Answer(::ptrace(static_cast<__ptrace_request>(request), pid, nullptr, nullptr));
}

std::string ReadMemory(pid_t pid) {
  char byte;
  const iovec local = {&byte, 1};
  const iovec remote = {reinterpret_cast<void*>(0x400000), 1};
  return Answer(::process_vm_readv(pid, &local, 1, &remote, 1, 0));
}

std::string WriteMemory(pid_t pid) {
  char byte = 0;
  const iovec local = {&byte, 1};
  const iovec remote = {reinterpret_cast<void*>(0x400000), 1};
  return Answer(::process_vm_writev(pid, &local, 1, &remote, 1, 0));
}

std::string LimitPidOne() {
  rlimit same = {};
  if (::getrlimit(RLIMIT_NOFILE, &same) != 0) return ErrnoName(errno);
  return Answer(::prlimit(1, RLIMIT_NOFILE, &same, nullptr));
}

std::string PinPidOne() {
  cpu_set_t first;
  CPU_ZERO(&first);
  CPU_SET(0, &first);
  return Answer(::sched_setaffinity(1, sizeof(first), &first));
}

std::string IdlePidOne() {
  const sched_param parameters = {};
  return Answer(::sched_setscheduler(1, SCHED_IDLE, &parameters));
}

std::string Link(const char* path) {
  char text[4096];
  return Answer(::readlink(path, text, sizeof(text)));
}

std::string Write(const char* path, const char* text) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoName(errno);
  return Answer(::write(fd, text, ::strlen(text)));
}

// Who may list them may still not open them: the way to the host's directories that pid 1 holds.
std::string OpenDescriptorsOfPidOne() {
  std::string word = "ENOENT";
  for (int fd = 0; fd < 64; ++fd) {
    const std::string answer = Open(("/proc/1/fd/" + std::to_string(fd)).c_str(), O_RDONLY);
    if (answer == "ENOENT") continue;
    if (word != "ENOENT" && word != answer) return word + "/" + answer;
    word = answer;
  }
  return word;
}

// The runner's own are CLOEXEC; anything else it was started with.
std::string OwnDescriptors() {
  DIR* descriptors = ::opendir("/proc/self/fd");
  if (descriptors == nullptr) return ErrnoName(errno);
  std::string others;
  while (const dirent* entry = ::readdir(descriptors)) {
    const int fd = ::atoi(entry->d_name);
    if (entry->d_name[0] == '.' || fd <= 2 || fd == ::dirfd(descriptors)) continue;
    if ((::fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0) others += "+" + std::to_string(fd);
  }
  return others.empty() ? "0-2" : others;
}

std::string LinkIs(const char* path, const char* expected) {
  char text[4096] = {};
  if (::readlink(path, text, sizeof(text) - 1) < 0) return ErrnoName(errno);
  return ::strcmp(text, expected) == 0 ? "inside" : text;
}

// The task's cgroups look like the roots of their hierarchies.
std::string CgroupPaths() {
  FILE* file = ::fopen("/proc/self/cgroup", "re");
  if (file == nullptr) return ErrnoName(errno);
  char line[512];
  while (::fgets(line, sizeof(line), file) != nullptr) {
    const size_t size = ::strcspn(line, "\n");
    if (size < 2 || line[size - 1] != '/' || line[size - 2] != ':') return "seen";
  }
  return "hidden";
}

std::string RunPidOnesProgram() {
  ::execl("/proc/1/exe", "escape", static_cast<char*>(nullptr));
  return ErrnoName(errno);
}

constexpr int kSeize = 0x4206;

}  // namespace

Attempts ProcessAttempts() {
  return {
      {"CountProcesses", CountProcesses},
      {"KillHostProcess", [] { return Kill(HostPid(), 0); }},
      {"PtraceHostProcess", [] { return Ptrace(HostPid(), kSeize); }},
      {"ReadHostProcess", [] { return ReadMemory(HostPid()); }},
      {"PidfdOfHostProcess", [] { return Answer(::syscall(SYS_pidfd_open, HostPid(), 0)); }},
      {"KillPidOneByAnySignal", KillPidOneByAnySignal},
      {"KillPidOneByPidfd", PidfdSignal},
      {"PtraceAttachPidOne", [] { return Ptrace(1, PTRACE_ATTACH); }},
      {"PtraceSeizePidOne", [] { return Ptrace(1, kSeize); }},
      {"ReadMemoryOfPidOne", [] { return ReadMemory(1); }},
      {"WriteMemoryOfPidOne", [] { return WriteMemory(1); }},
      {"OpenMemOfPidOne", [] { return Open("/proc/1/mem", O_RDWR); }},
      {"EnvironOfPidOne", [] { return Read("/proc/1/environ"); }},
      {"MapsOfPidOne", [] { return Read("/proc/1/maps"); }},
      {"SmapsOfPidOne", [] { return Read("/proc/1/smaps_rollup"); }},
      {"AuxvOfPidOne", [] { return Read("/proc/1/auxv"); }},
      {"SyscallOfPidOne", [] { return Read("/proc/1/syscall"); }},
      {"StackOfPidOne", [] { return Read("/proc/1/stack"); }},
      {"IoOfPidOne", [] { return Read("/proc/1/io"); }},
      {"PersonalityOfPidOne", [] { return Read("/proc/1/personality"); }},
      {"TimersOfPidOne", [] { return Read("/proc/1/timers"); }},
      {"PagemapOfPidOne", [] { return Open("/proc/1/pagemap", O_RDONLY); }},
      {"DescriptorsOfPidOne", [] { return List("/proc/1/fd"); }},
      {"OpenDescriptorsOfPidOne", OpenDescriptorsOfPidOne},
      {"FdinfoOfPidOne", [] { return List("/proc/1/fdinfo"); }},
      {"MapFilesOfPidOne", [] { return List("/proc/1/map_files"); }},
      {"TaskDescriptorsOfPidOne", [] { return List("/proc/1/task/1/fd"); }},
      {"ExeOfPidOne", [] { return Link("/proc/1/exe"); }},
      {"CwdOfPidOne", [] { return Link("/proc/1/cwd"); }},
      {"RootOfPidOne", [] { return List("/proc/1/root"); }},
      {"NamespaceOfPidOne", [] { return Link("/proc/1/ns/mnt"); }},
      {"LimitPidOne", LimitPidOne},
      {"RenicePidOne", [] { return Answer(::setpriority(PRIO_PROCESS, 1, 19)); }},
      {"PinPidOne", PinPidOne},
      {"IdlePidOne", IdlePidOne},
      {"IoprioOfPidOne", [] { return Answer(::syscall(SYS_ioprio_set, 1, 1, 3 << 13)); }},
      {"TimerslackOfPidOne", [] { return Write("/proc/1/timerslack_ns", "4000000000"); }},
      {"AttributesOfPidOne", [] { return Write("/proc/1/attr/current", "unconfined"); }},
      {"OomScoreOfPidOne", [] { return Write("/proc/1/oom_score_adj", "1"); }},
      {"NameOfPidOne", [] { return Write("/proc/1/comm", "x"); }},
      {"ClearRefsOfPidOne", [] { return Write("/proc/1/clear_refs", "1"); }},
      {"CoredumpFilterOfPidOne", [] { return Write("/proc/1/coredump_filter", "0xff"); }},
      {"AutogroupOfPidOne", [] { return Write("/proc/1/autogroup", "19"); }},
      {"PidfdGetfdOfPidOne",
       [] { return Answer(::syscall(SYS_pidfd_getfd, PidfdOfPidOne(), 0, 0)); }},
      {"KcmpPidOne", [] { return Answer(::syscall(SYS_kcmp, ::getpid(), 1, 0, 0, 0)); }},
      {"ProcessMadvisePidOne",
       [] { return Answer(::syscall(SYS_process_madvise, PidfdOfPidOne(), nullptr, 0, 21, 0)); }},
      {"ProcessMreleasePidOne",
       [] { return Answer(::syscall(SYS_process_mrelease, PidfdOfPidOne(), 0)); }},
      {"OwnProgramForWriting", [] { return Open("/proc/self/exe", O_RDWR); }},
      {"ProgramOfPidOneForWriting", [] { return Open("/proc/1/exe", O_RDWR); }},
      {"RunPidOnesProgram", RunPidOnesProgram},
      {"OwnDescriptors", OwnDescriptors},
      {"OwnWorkDirectory", [] { return LinkIs("/proc/self/cwd", "/local"); }},
      {"OwnRoot", [] { return LinkIs("/proc/self/root", "/"); }},
      {"CgroupPaths", CgroupPaths},
  };
}

}  // namespace jenkins_agent::escape
