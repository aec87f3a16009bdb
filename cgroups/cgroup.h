// The cgroup directories of one task: made, limited, joined, read, killed, removed.
//
// v1 (also hybrid): <controller>/nomad/<name> in freezer, memory, cpu (Nomad makes those three
// before StartTask), cpuacct, pids, with an I/O weight blkio (ours), and Nomad's cpuset. v2:
// Nomad's one scope. The supervisor creates it and hands its doors to pid 1, which never goes in;
// the launch children inherit these through fork and move themselves. The plugin opens it anew
// after a restart. Not thread-safe, except that the const methods may run at the same time.
//
// Nothing here writes v1's cgroup.procs or moves another process: that waits for an RCU grace
// period, 7-13 ms. A single-threaded process that moves itself through `tasks` does not, nor does
// one that v2 clones into the directory.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cgroups/gauges.h"
#include "cgroups/hierarchy.h"
#include "cgroups/layout.h"
#include "cgroups/limits.h"
#include "cgroups/oom_watch.h"
#include "cgroups/usage.h"
#include "driver/base/fd.h"

namespace jenkins_agent::cgroups {

class Cgroup {
 public:
  // How long Create waits for processes that an earlier start of the same task left behind.
  static constexpr std::chrono::milliseconds kLeftoversLimit{5000};
  // How long KillChosen tries to make all stand still.
  static constexpr std::chrono::milliseconds kFreezeLimit{500};

  // Makes what is missing, ends the leftovers of an earlier start, writes all limits while nobody
  // is inside and opens what Enter and views need. Undoes what it made when a step fails.
  // FailedPrecondition: the host has no cgroups, lacks a controller that a limit needs, or the
  // shared cpuset has no cores yet.
  static absl::StatusOr<Cgroup> Create(const Hierarchy& hierarchy, const Placement& placement,
                                       const Limits& limits);
  // What dirs() of Create will be (`placement` with its extra controllers), for one who has to know
  // before anything is made.
  static absl::StatusOr<std::vector<std::string>> DirsFor(const Hierarchy& hierarchy,
                                                          const Placement& placement);
  // For one who has only the list of dirs(). Holds no descriptors: no Enter or views.
  static absl::StatusOr<Cgroup> Open(const Hierarchy& hierarchy,
                                     const std::vector<std::string>& dirs);

  // Not known yet: Enter and Fork fail.
  explicit Cgroup(const Hierarchy& hierarchy) : hierarchy_(hierarchy) {}
  Cgroup(Cgroup&&) = default;
  Cgroup& operator=(Cgroup&&) = default;

  // What a process that was cloned before needs of Create's Cgroup to Enter and Fork, and nothing
  // else. `fds`: one for each name, v2 one more; of doors() borrowed.
  struct Doors {
    std::vector<std::string> names;
    std::vector<int> fds;
  };
  Doors doors() const;
  static absl::StatusOr<Cgroup> FromDoors(const Hierarchy& hierarchy,
                                          const std::vector<std::string>& names,
                                          std::vector<Fd> fds);

  // Absolute, of this task only (never the shared cpuset).
  const std::vector<std::string>& dirs() const { return dirs_; }
  // What Create made, parents first. The rest was there: Nomad's.
  const std::vector<std::string>& dirs_made() const { return dirs_made_; }

  // The calling process, single-threaded, moves itself in. Success allocates nothing.
  absl::Status Enter() const;
  // fork(2). v2: the child is inside already, if the kernel lets the caller: see
  // Hierarchy::namespaces_delegate. Else the child has to Enter.
  struct Forked {
    pid_t pid = 0;  // 0 in the child
    bool inside = false;
  };
  absl::StatusOr<Forked> Fork() const;

  // What the sandbox binds read-only under /sys/fs/cgroup/<name>. v1: memory, cpu, cpuacct, cpuset
  // (HotSpot ignores every limit unless all four are there). v2: one with the name "".
  // O_PATH descriptors of this object.
  struct View {
    std::string name;
    int dir_fd;
  };
  std::vector<View> views() const;
  // The names that views have on v1.
  static std::vector<std::string> ViewNames();
  // v2: descriptor for clone3(CLONE_INTO_CGROUP). v1: -1.
  absl::StatusOr<int> clone_into_fd() const;

  absl::StatusOr<Usage> ReadUsage() const;
  absl::StatusOr<Ceiling> ReadCeiling() const;
  // v1: nothing is known.
  absl::StatusOr<Stalls> ReadStalls() const;
  // For one who looks often, at little.
  absl::StatusOr<Gauges> OpenGauges() const;
  // Processes that the kernel killed for want of memory, since the directory was made: compare.
  absl::StatusOr<uint64_t> OomKills() const;
  absl::StatusOr<OomWatch> WatchOom() const;
  absl::StatusOr<std::vector<pid_t>> Members() const;

  // Everything inside stands still, also what is forked meanwhile, until Thaw. The caller must not
  // be inside. DeadlineExceeded: it does not stand, and runs again.
  absl::Status Freeze(std::chrono::milliseconds limit) const;
  absl::Status Thaw() const;

  // SIGKILLs everything inside and blocks until it is gone; see kill.h.
  absl::Status KillAll(std::chrono::milliseconds limit) const;
  // Ends those that `doomed` chooses while all stand still, the others go on afterwards; returns
  // how many. Whoever dies in the middle leaves them standing: then Thaw.
  absl::StatusOr<size_t> KillChosen(absl::FunctionRef<bool(pid_t)> doomed,
                                    std::chrono::milliseconds limit) const;
  // Removes what Create made and what Nomad never makes (pids, cpuacct) with empty parents; all of
  // it when no Nomad has set up cgroups on this node. Nobody may be inside. Idempotent.
  absl::Status Remove() const;

 private:
  struct Door {  // the file that moves whoever writes "0" to it
    std::string name;
    Fd file;
  };
  struct OpenView {
    std::string name;
    Fd dir;
  };

  Cgroup(const Hierarchy& hierarchy, std::vector<Part> parts);
  absl::Status MakeDirectories();
  absl::Status FillOwnCpuset() const;
  void EnableControllers() const;
  absl::Status WriteLimits(const Limits& limits) const;
  absl::Status WriteIoWeight(int64_t weight) const;
  absl::Status WriteDevices(const std::optional<std::vector<DeviceRule>>& rules) const;
  absl::Status CheckCpuset() const;
  absl::Status OpenDoors();
  absl::Status OpenViews();

  bool IsV2() const { return hierarchy_.version() == Version::kV2; }
  void RemoveEmptyParents(const Part& part) const;
  std::string NomadsMark() const;
  // The directory below which parents are made and removed.
  std::string FloorOf(const Part& part) const;
  // Directory of a controller, "" when the task has none there.
  std::string DirOf(const std::string& controller) const;
  // Where the processes are listed: the freezer, else any directory of this task.
  std::string MembersDir() const;
  absl::Status CheckExists() const;
  FileReader Reader() const;
  // "cgroup memory/nomad/x"
  std::string Title(const std::string& dir) const;

  Hierarchy hierarchy_;
  std::vector<Part> parts_;
  std::vector<std::string> dirs_;
  std::vector<std::string> dirs_made_;
  std::vector<Door> doors_;
  std::vector<OpenView> views_;
};

// A cgroup namespace whose roots are where the caller is now. Who shall not be inside joins that of
// one who was, by its pidfd: cgroup namespaces are taken from a process, never from a directory
// (cgroup_namespaces(7)). The caller is single-threaded; both need CAP_SYS_ADMIN.
absl::Status UnshareNamespace();
absl::Status JoinNamespaceOf(int pidfd);

}  // namespace jenkins_agent::cgroups
