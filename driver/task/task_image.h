// What a plan needs to know of the image that a task runs on, read from the kept layers without
// mounting them. Thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/image/manifest.h"
#include "driver/image/store.h"
#include "driver/jvm/java.h"

namespace jenkins_agent {

struct TaskImage {
  std::string name;  // as the store calls it
  Digest manifest = {};
  ImageConfig config = {};
  std::vector<std::string> layers = {};  // their directories, topmost first
  std::string passwd = "";               // its /etc/passwd; empty when it has none
  std::string group = "";                // its /etc/group
  std::vector<JavaInstall> javas = {};   // in it, the one to take first
  bool has_java_home = false;            // the first one is the job's java_home
};

// `java_home`: looked at first, when the job names one; may be empty. Errors name the image.
absl::StatusOr<TaskImage> ReadTaskImage(const Store& store, const StoredImage& image,
                                        const std::string& name, const std::string& java_home);

// The directories in which an image's Java may be: of its own JAVA_HOME, of its PATH. Pure.
std::vector<std::string> JavaHomesNamedBy(const ImageConfig& config);

}  // namespace jenkins_agent
