// What crun and runc are given: a bundle that asks for the sandbox that the driver makes.
#pragma once

#include <sys/types.h>

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cgroups/hierarchy.h"
#include "tests/bench/fleet.h"

namespace jenkins_agent::bench {

// crun refuses hybrid cgroup layouts, so all that this thread starts from now on sees the v1
// hierarchies only.
absl::Status HideUnifiedTree();

// A program without any sandbox, by posix_spawn.
absl::StatusOr<Sample> MeasureSpawn(const std::vector<std::string>& argv,
                                    const std::string& log = "");

class OciBundle {
 public:
  static bool Installed(const std::string& runtime);
  // Files go below `dir`; `probe` is the program, a path on the host. `own_network`: else the
  // host's.
  static absl::StatusOr<OciBundle> Make(const std::string& dir, const std::string& probe,
                                        bool own_network);
  // The same sandbox for another program, whose cgroups have a parent of their own as tasks of
  // Nomad have.
  static absl::StatusOr<OciBundle> MakeProgram(const std::string& dir, const Program& program);

  // `<runtime> run`: started -> the probe's stamp, and -> the runtime's own end.
  absl::StatusOr<Sample> MeasureRun(const std::string& runtime) const;

  // Starts it without an output; Kill ends it with all that it started.
  absl::Status StartDetached(const std::string& runtime) const;
  // The same, and the runtime stays beside it, as whoever waits for its end needs it: a child of
  // the caller's, until EndAttached reaps it.
  absl::StatusOr<pid_t> StartAttached(const std::string& runtime) const;
  absl::Status EndAttached(const std::string& runtime, pid_t pid) const;
  absl::Status Kill(const std::string& runtime) const;
  // What it writes until it ends by itself.
  absl::StatusOr<std::string> Run(const std::string& runtime) const;
  // Of a program's bundle.
  Running running(const cgroups::Hierarchy& hierarchy) const;

 private:
  static absl::Status Write(const std::string& dir, const nlohmann::ordered_json& config);
  std::string IdOf(const std::string& runtime) const;
  std::vector<std::string> Command(const std::string& runtime,
                                   const std::vector<std::string>& arguments) const;

  explicit OciBundle(const std::string& dir) : dir_(dir) {}
  const std::string dir_;
};

}  // namespace jenkins_agent::bench
