#include "driver/task/task_image.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"
#include "driver/image/merged_tree.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxAccountsBytes = 1 << 20;
constexpr const char* kUsualPlaces[] = {"/opt/java", "/usr/lib/jvm", "/opt"};

// Nothing: no Java there.
std::optional<JavaInstall> JavaAt(const MergedTree& tree, const std::string& home) {
  const absl::StatusOr<std::string> path = tree.Resolve(home);
  if (!path.ok() || !tree.IsProgram(*path + "/bin/java")) return std::nullopt;
  const absl::StatusOr<std::string> release = tree.ReadFile(*path + "/release", kMaxReleaseBytes);
  if (!release.ok()) return std::nullopt;
  absl::StatusOr<JavaInstall> java = ReadJavaRelease(*path, *release);
  if (!java.ok()) return std::nullopt;
  return *std::move(java);
}

void AddNew(std::optional<JavaInstall> java, std::vector<JavaInstall>& javas) {
  if (!java.has_value()) return;
  const bool known = std::any_of(javas.begin(), javas.end(), [&java](const JavaInstall& other) {
    return other.path == java->path;
  });
  if (!known) javas.push_back(*std::move(java));
}

// Named ones in their order, then what lies in the usual places, newest first.
std::vector<JavaInstall> FindJavas(const MergedTree& tree, const ImageConfig& config,
                                   const std::string& java_home) {
  std::vector<JavaInstall> javas;
  if (!java_home.empty()) AddNew(JavaAt(tree, java_home), javas);
  for (const std::string& home : JavaHomesNamedBy(config)) AddNew(JavaAt(tree, home), javas);
  std::vector<JavaInstall> usual;
  for (const char* place : kUsualPlaces) {
    for (const std::string& name : tree.List(place)) {
      AddNew(JavaAt(tree, absl::StrCat(place, "/", name)), usual);
    }
  }
  SortNewestFirst(usual);
  for (JavaInstall& java : usual) AddNew(std::move(java), javas);
  return javas;
}

// An image without such a file is none of an operating system: nobody has a name in it.
absl::StatusOr<std::string> AccountsFile(const MergedTree& tree, const char* path) {
  absl::StatusOr<std::string> text = tree.ReadFile(path, kMaxAccountsBytes);
  if (absl::IsNotFound(text.status()) || absl::IsFailedPrecondition(text.status())) {
    return std::string();
  }
  return text;
}

}  // namespace

std::vector<std::string> JavaHomesNamedBy(const ImageConfig& config) {
  std::vector<std::string> homes;
  for (absl::string_view variable : config.env) {
    if (absl::ConsumePrefix(&variable, "JAVA_HOME=")) {
      homes.insert(homes.begin(), std::string(variable));
    } else if (absl::ConsumePrefix(&variable, "PATH=")) {
      for (absl::string_view directory : absl::StrSplit(variable, ':')) {
        if (absl::ConsumeSuffix(&directory, "/bin")) homes.emplace_back(directory);
      }
    }
  }
  homes.erase(
      std::remove_if(homes.begin(), homes.end(),
                     [](const std::string& home) { return home.empty() || home.front() != '/'; }),
      homes.end());
  return homes;
}

absl::StatusOr<TaskImage> ReadTaskImage(const Store& store, const StoredImage& image,
                                        const std::string& name, const std::string& java_home) {
  const std::string context = absl::StrCat("image ", name);
  TaskImage read;
  read.name = name;
  read.manifest = image.manifest;
  ASSIGN_OR_RETURN(read.config, ParseImageConfig(image.config), context);
  for (auto layer = image.layers.rbegin(); layer != image.layers.rend(); ++layer) {
    const std::string path = store.LayerPath(layer->key);
    // overlayfs refuses a directory that comes twice; the upper one hides the lower all the same.
    if (std::find(read.layers.begin(), read.layers.end(), path) == read.layers.end()) {
      read.layers.push_back(path);
    }
  }
  ASSIGN_OR_RETURN(const MergedTree tree, MergedTree::Open(read.layers), context);
  ASSIGN_OR_RETURN(read.passwd, AccountsFile(tree, "/etc/passwd"), context);
  ASSIGN_OR_RETURN(read.group, AccountsFile(tree, "/etc/group"), context);
  read.javas = FindJavas(tree, read.config, java_home);
  read.has_java_home = !java_home.empty() && JavaAt(tree, java_home).has_value();
  return read;
}

}  // namespace jenkins_agent
