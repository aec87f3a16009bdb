#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/helpers/escape.h"

namespace jenkins_agent::escape {
namespace {

std::string Unshare(int flags) { return Answer(::unshare(flags)); }

// As fork, with new namespaces.
std::string Clone(unsigned long flags) {
  const long child = ::syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) ::_exit(0);
  return Answer(child);
}

std::string Clone3(unsigned long flags) {
  clone_args arguments = {};
  arguments.flags = flags;
  arguments.exit_signal = SIGCHLD;
  const long child = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (child == 0) ::_exit(0);
  return Answer(child);
}

std::string Setns(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoName(errno);
  return Answer(::setns(fd, 0));
}

std::string SetnsByPidfd() {
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, 1, 0));
  if (pidfd < 0) return ErrnoName(errno);
  return Answer(::setns(pidfd, CLONE_NEWNS));
}

std::string Thread() {
  pthread_t thread;
  const int error = ::pthread_create(
      &thread, nullptr, [](void*) -> void* { return nullptr; }, nullptr);
  if (error != 0) return ErrnoName(error);
  return ::pthread_join(thread, nullptr) == 0 ? "done" : "lost";
}

}  // namespace

Attempts NamespaceAttempts() {
  return {
      {"UnshareUser", [] { return Unshare(CLONE_NEWUSER); }},
      {"UnshareMount", [] { return Unshare(CLONE_NEWNS); }},
      {"UnshareNetwork", [] { return Unshare(CLONE_NEWNET); }},
      {"UnsharePid", [] { return Unshare(CLONE_NEWPID); }},
      {"UnshareIpc", [] { return Unshare(CLONE_NEWIPC); }},
      {"UnshareUts", [] { return Unshare(CLONE_NEWUTS); }},
      {"UnshareCgroup", [] { return Unshare(CLONE_NEWCGROUP); }},
      {"UnshareTime", [] { return Unshare(CLONE_NEWTIME); }},
      {"UnshareUserAndMount", [] { return Unshare(CLONE_NEWUSER | CLONE_NEWNS); }},
      {"CloneUser", [] { return Clone(CLONE_NEWUSER); }},
      {"CloneMount", [] { return Clone(CLONE_NEWNS); }},
      {"CloneUserHighBits", [] { return Clone(CLONE_NEWUSER | (1UL << 40)); }},
      {"Clone3Plain", [] { return Clone3(0); }},
      {"Clone3User", [] { return Clone3(CLONE_NEWUSER); }},
      {"ThreadsStillWork", Thread},
      {"SetnsOfPidOne", [] { return Setns("/proc/1/ns/mnt"); }},
      {"SetnsByPidfdOfPidOne", SetnsByPidfd},
      {"SetnsOfItself", [] { return Setns("/proc/self/ns/mnt"); }},
  };
}

}  // namespace jenkins_agent::escape
