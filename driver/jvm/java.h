// The JDKs and JREs of a root file system.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

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

// One directory; NotFound when it holds no Java, InvalidArgument when its version is unreadable.
absl::StatusOr<JavaInstall> ReadJavaHome(const std::string& path);

}  // namespace jenkins_agent
