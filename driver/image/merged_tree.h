// What the layers of an image show together, by overlayfs' rules, without mounting them: for the
// few files that a plan asks for. Links are followed as if the image were "/": nothing outside the
// layers is ever looked at, whatever they hold. Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

class MergedTree {
 public:
  // `layers`: their directories, topmost first.
  static absl::StatusOr<MergedTree> Open(const std::vector<std::string>& layers);

  // `path` with all links resolved, "/usr/lib/jvm/java-17". NotFound: nothing is there.
  // FailedPrecondition: a loop of links, or thousands of directories.
  absl::StatusOr<std::string> Resolve(absl::string_view path) const;
  // A regular file's content, at most `limit` bytes. NotFound; FailedPrecondition: no such file.
  absl::StatusOr<std::string> ReadFile(absl::string_view path, size_t limit) const;
  // The file, links followed, is a regular one that somebody may execute.
  bool IsProgram(absl::string_view path) const;
  // Names in a directory, sorted, at most 1000; none when there is no directory.
  std::vector<std::string> List(absl::string_view path) const;

 private:
  // What a path means: a directory is as many directories as layers have it, topmost first.
  struct Node {
    std::vector<Fd> dirs;
    Fd file;               // O_PATH of what is no directory; none when there are `dirs`
    std::string resolved;  // without links
  };
  explicit MergedTree(std::vector<Fd> layers) : layers_(std::move(layers)) {}
  absl::StatusOr<Node> Walk(absl::string_view path) const;
  static absl::StatusOr<Node> Step(const std::vector<Fd>& dirs, const std::string& name);

  std::vector<Fd> layers_;
};

}  // namespace jenkins_agent
