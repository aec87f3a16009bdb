// What crun and runc are given: a bundle that asks for the sandbox that the driver makes.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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
  // The same sandbox for a shell's script; `local_dir` is its /local.
  static absl::StatusOr<OciBundle> MakeScript(const std::string& dir, const std::string& local_dir,
                                              const std::string& script);

  // `<runtime> run`: started -> the probe's stamp, and -> the runtime's own end.
  absl::StatusOr<Sample> MeasureRun(const std::string& runtime) const;

  // Starts it without an output; Kill ends it with all that it started.
  absl::Status StartDetached(const std::string& runtime) const;
  absl::Status Kill(const std::string& runtime) const;

 private:
  static absl::StatusOr<OciBundle> MakeBundle(const std::string& dir, const std::string& local_dir,
                                              const std::vector<std::string>& args,
                                              bool own_network);
  std::string IdOf(const std::string& runtime) const;
  std::vector<std::string> Command(const std::string& runtime) const;

  explicit OciBundle(const std::string& dir) : dir_(dir) {}
  const std::string dir_;
};

}  // namespace jenkins_agent::bench
