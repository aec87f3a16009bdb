// What a resting task costs in helper processes: supervisor and pid 1 together.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cgroups/hierarchy.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "tests/bench/fleet.h"
#include "tests/bench/oci.h"
#include "tests/bench/process.h"
#include "tests/bench/scenarios.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent::bench {
namespace {

// isolation.md 4.2, on the same kind of machine; a shim needs its daemon to run.
constexpr char kConmon[] = "recorded: conmon 2.1.6";
constexpr double kConmonPssKb = 606;
constexpr double kConmonPrivateDirtyKb = 330;

constexpr int kEnoughToShare = 20;  // below, the program's pages are shared by too few
constexpr double kPssTargetKb = 204.8;
constexpr double kPrivateDirtyTargetKb = 102.4;

struct Peer {
  OciBundle bundle;
  pid_t pid;
};

absl::Status EndPeers(const std::string& runtime, const std::vector<Peer>& peers) {
  absl::Status ended;
  for (const Peer& peer : peers) {
    ended.Update(peer.bundle.EndAttached(runtime, peer.pid));
  }
  return ended;
}

// Until the container's program runs the runtime is still at work.
absl::Status AwaitProgram(const OciBundle& bundle) {
  ASSIGN_OR_RETURN(const cgroups::Hierarchy hierarchy, cgroups::Hierarchy::Detect());
  const std::string members = bundle.running(hierarchy).cgroup_dirs.front() + "/cgroup.procs";
  const bool runs = WaitFor([&] {
    const std::string text = ReadFile(members).value_or("");
    const std::vector<absl::string_view> pids = absl::StrSplit(text, '\n', absl::SkipEmpty());
    return std::any_of(pids.begin(), pids.end(), [](absl::string_view pid) {
      return ReadFile(absl::StrCat("/proc/", pid, "/comm")).value_or("") == "sleep\n";
    });
  });
  if (!runs) return absl::DeadlineExceededError("the container's program does not run");
  return absl::OkStatus();
}

// What `<runtime> run` leaves beside each container, the runtime itself, on average.
absl::StatusOr<ProcessMemory> MemoryOfPeers(const std::string& runtime, const std::string& dir,
                                            int count) {
  std::vector<Peer> peers;
  ProcessMemory sum;
  absl::Status status;
  for (int i = 0; i < count && status.ok(); ++i) {
    const std::string own = absl::StrCat(dir, "/", runtime, i);
    RETURN_IF_ERROR(MakeDirs(own));
    ASSIGN_OR_RETURN(const OciBundle bundle,
                     OciBundle::MakeProgram(own, {.file = "/usr/bin/sleep", .args = {"1000"}}));
    ASSIGN_OR_RETURN(const pid_t pid, bundle.StartAttached(runtime));
    peers.push_back({bundle, pid});
    status = AwaitProgram(bundle);
  }
  for (const Peer& peer : peers) {
    const absl::StatusOr<ProcessMemory> own = MemoryOf(peer.pid);
    status.Update(own.status());
    if (own.ok()) sum += *own;
  }
  status.Update(EndPeers(runtime, peers));
  if (!status.ok()) return Annotate(status, runtime);
  return ProcessMemory{sum.rss_kb / count, sum.pss_kb / count, sum.private_dirty_kb / count};
}

absl::Status AddPeers(const ProcessMemory& ours, const std::string& dir, Report& report) {
  RETURN_IF_ERROR(HideUnifiedTree());
  const std::string conditions = absl::StrCat("per task, ", kEnoughToShare, " tasks");
  for (const std::string runtime : {"crun", "runc"}) {
    if (!OciBundle::Installed(runtime)) continue;
    ASSIGN_OR_RETURN(const ProcessMemory theirs, MemoryOfPeers(runtime, dir, kEnoughToShare));
    const std::string name = absl::StrCat(runtime, " run");
    report.Add({"helper_pss_kb", conditions, ours.pss_kb, name, theirs.pss_kb});
    report.Add({"helper_private_dirty_kb", conditions, ours.private_dirty_kb, name,
                theirs.private_dirty_kb});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchMemory(Report& report) {
  const TempDir dir;
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, Fleet::Launch(dir.path(), {}));
  for (const int tasks : {1, 20, 100}) {
    RETURN_IF_ERROR(fleet->StartResting(tasks - static_cast<int>(fleet->size())));
    ASSIGN_OR_RETURN(const ProcessMemory sum, fleet->HelperMemory());
    const std::string conditions = absl::StrCat("per task, ", tasks, " tasks");
    const double pss = sum.pss_kb / tasks;
    const double dirty = sum.private_dirty_kb / tasks;
    Figure pss_figure{"helper_pss_kb", conditions, pss, kConmon, kConmonPssKb};
    Figure dirty_figure{"helper_private_dirty_kb", conditions, dirty, kConmon,
                        kConmonPrivateDirtyKb};
    if (tasks >= kEnoughToShare) {
      pss_figure.target = "<= 0.2 MiB";
      pss_figure.met = pss <= kPssTargetKb;
      dirty_figure.target = "<= 0.1 MiB";
      dirty_figure.met = dirty <= kPrivateDirtyTargetKb;
    }
    report.Add(pss_figure);
    report.Add(dirty_figure);
    if (tasks == kEnoughToShare) {
      RETURN_IF_ERROR(AddPeers({0, pss, dirty}, dir.path(), report));
    }
    ASSIGN_OR_RETURN(const ProcessMemory plugin, MemoryOf(fleet->plugin()));
    ASSIGN_OR_RETURN(const int threads, ThreadsOf(fleet->plugin()));
    report.Add({"plugin_rss_mb", absl::StrCat(tasks, " tasks"), plugin.rss_kb / 1024});
    report.Add({"plugin_threads", absl::StrCat(tasks, " tasks"), static_cast<double>(threads)});
  }
  return fleet->DestroyAll();
}

}  // namespace jenkins_agent::bench
