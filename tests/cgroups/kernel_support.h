// Children and snapshots for the tests on the real kernel.
#pragma once

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <set>
#include <string>

#include "driver/base/fd.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent::cgroups {

// A forked child that runs `body` and exits with its result; killed and reaped at the end of the
// test. `body` may tell "ready" by a byte in the pipe that it gets.
class Child {
 public:
  explicit Child(const std::function<int(int ready_fd)>& body) {
    Pipe pipe = *MakePipe();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::signal(SIGPIPE, SIG_DFL);
      ::_exit(body(pipe.write.get()));
    }
    ready_ = std::move(pipe.read);
  }
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    Wait();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  // False when the child ended without a word.
  bool WaitReady() {
    char byte = 0;
    return ::read(ready_.get(), &byte, 1) == 1;
  }
  // The wait status.
  int Wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_ = -1;
  Fd ready_;
};

inline void SayReady(int fd) { (void)!::write(fd, "r", 1); }

// Sleeps until killed.
inline int Idle(int ready_fd) {
  SayReady(ready_fd);
  while (true) ::pause();
}

// Every directory below `root`. One that another test removes meanwhile is left out, and only that
// one: a recursive_directory_iterator would end there.
inline void AddDirectoriesBelow(const std::filesystem::path& root, std::set<std::string>& found) {
  std::error_code ignored;
  for (std::filesystem::directory_iterator
           entry(root, std::filesystem::directory_options::skip_permission_denied, ignored),
       end;
       entry != end; entry.increment(ignored)) {
    if (!entry->is_directory(ignored) || entry->is_symlink(ignored)) continue;
    found.insert(entry->path());
    AddDirectoriesBelow(entry->path(), found);
  }
}

inline std::set<std::string> DirectoriesBelow(const std::string& root) {
  std::set<std::string> directories;
  AddDirectoriesBelow(root, directories);
  return directories;
}

// Those whose path holds `part`: others' tests may run at the same time.
inline std::set<std::string> DirectoriesNamed(const std::string& root, const std::string& part) {
  std::set<std::string> named;
  for (const std::string& path : DirectoriesBelow(root)) {
    if (path.find(part) != std::string::npos) named.insert(path);
  }
  return named;
}

}  // namespace jenkins_agent::cgroups
