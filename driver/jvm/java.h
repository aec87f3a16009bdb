// The JDKs and JREs of a root file system.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

struct JavaInstall {
  std::string path;      // JAVA_HOME, symlinks resolved
  uint32_t feature = 0;  // 8, 17, 25
  std::string version;   // "17.0.15"
  std::string vendor;    // "Eclipse Adoptium"; may be empty
};

// Looks at each of `patterns` (glob(7); empty: /usr/lib/jvm/* and /opt/*) for a directory with
// `bin/java` and a `release` file, which every JDK since 8 has. Newest first, no directory twice;
// what is none is skipped. An empty result is no error.
absl::StatusOr<std::vector<JavaInstall>> FindJavaHomes(const std::vector<std::string>& patterns);

inline constexpr size_t kMaxReleaseBytes = 64 << 10;

// The Java in `path` by the text of its `release` file. InvalidArgument when its version is
// unreadable. Pure.
absl::StatusOr<JavaInstall> ReadJavaRelease(const std::string& path, absl::string_view release);
void SortNewestFirst(std::vector<JavaInstall>& javas);

// One directory; NotFound when it holds no Java, InvalidArgument when its version is unreadable.
absl::StatusOr<JavaInstall> ReadJavaHome(const std::string& path);

}  // namespace jenkins_agent
