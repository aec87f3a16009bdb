// A task's cgroup on the real kernel: fixture, children and snapshots.
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "cgroups/files.h"
#include "driver/base/fd.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent::cgroups {

constexpr std::chrono::milliseconds kLimit(20000);

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

// The bits of what can be opened, 0 for an error that is no refusal: 1 null (in the standard list),
// 2 kmsg (not in it).
inline int DevicesThatOpen() {
  int opened = 0;
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (null) opened |= 1;
  const Fd log(::open("/dev/kmsg", O_RDONLY | O_CLOEXEC));
  if (log) opened |= 2;
  return log || errno == EPERM ? opened : 0;
}

// The path behind `controller` (":memory:", "0::") in the calling process's /proc/self/cgroup.
inline std::string OwnCgroup(const std::string& controller) {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t at = line.find(controller);
    if (at != std::string::npos) return line.substr(at + controller.size());
  }
  return "";
}

// Touches so much memory; 0 if it is still there then.
inline int UseMemory(size_t bytes) {
  char* memory = static_cast<char*>(
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (memory == MAP_FAILED) return 1;
  for (size_t at = 0; at < bytes; at += 4096) memory[at] = 1;
  return 0;
}

// Counts what a child does; shared with it, never freed.
inline std::atomic<uint64_t>* SharedCounter() {
  void* memory = ::mmap(nullptr, sizeof(std::atomic<uint64_t>), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return new (memory) std::atomic<uint64_t>(0);
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

#define REQUIRES_CONTROLLER(name) \
  if (!hierarchy_.Has(name)) GTEST_SKIP() << "needs the controller " << (name)

// One task's cgroup, of a name that only this test has.
class KernelTest : public testing::Test {
 protected:
  // kV2 is also the tree without controllers that hybrid hosts have beside v1.
  void SetUpFor(Version version) {
    REQUIRES_ROOT();
    for (const char* root : {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"}) {
      absl::StatusOr<Hierarchy> found = Hierarchy::Detect("/proc", root);
      if (found.ok() && found->version() == version) hierarchy_ = *found;
    }
    if (hierarchy_.version() != version) {
      GTEST_SKIP() << "needs cgroup v" << (version == Version::kV1 ? 1 : 2);
    }
    if (version == Version::kV1) return;
    parent_ = absl::StrCat(hierarchy_.root(), "/jenkins-agent-test-", ::getpid());
  }
  Placement PlacementOf(const std::string& name) const {
    return {.name = name, .cpuset_cgroup = parent_.empty() ? "" : parent_ + "/" + name + ".scope"};
  }
  absl::StatusOr<Cgroup> Create(const Limits& limits = {}) const {
    Placement placement = PlacementOf(name_);
    placement.extra_controllers = ExtraControllers(limits);
    return Cgroup::Create(hierarchy_, placement, limits);
  }
  // What this test has made and not removed, tasks whose names begin with name_ included.
  std::set<std::string> Leftovers() const {
    return DirectoriesNamed(hierarchy_.root(), parent_.empty() ? name_ : parent_);
  }

  Hierarchy hierarchy_;
  const std::string name_ = absl::StrCat("test-", ::getpid(), ".task");
  std::string parent_;  // v2: where Nomad would make the scopes
};

}  // namespace jenkins_agent::cgroups
