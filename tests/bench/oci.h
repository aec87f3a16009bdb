// What crun and runc are given: a bundle that asks for the sandbox that the driver makes.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace jenkins_agent::bench {

class OciBundle {
 public:
  static bool Installed(const std::string& runtime);
  // Files go below `dir`; `probe` is the program, a path on the host.
  static absl::StatusOr<OciBundle> Make(const std::string& dir, const std::string& probe);

  // `<runtime> run`: started -> the probe's stamp; returns when it has ended.
  absl::StatusOr<double> MeasureRun(const std::string& runtime) const;

 private:
  explicit OciBundle(const std::string& dir) : dir_(dir) {}
  const std::string dir_;
};

}  // namespace jenkins_agent::bench
