#include "driver/jvm/class_data.h"

#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/sandbox_paths.h"
#include "driver/base/status.h"
#include "driver/jvm/options.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxReleaseFileBytes = 64 << 10;
// The one that DefaultJvmOptions chooses: the layout of the heap and of its pointers belongs to it.
constexpr char kCollector[] = "-XX:+UseSerialGC";

// Options with which an archive cannot be mapped, or that are about archives themselves.
constexpr const char* kHindering[] = {"-XX:VMOptionsFile",
                                      "-XX:Flags",
                                      "-Xshare",
                                      "-XX:SharedArchiveFile",
                                      "-XX:ArchiveClassesAtExit",
                                      "-XX:AOT",
                                      "-XX:+AutoCreateSharedArchive",
                                      "-XX:-UseCompressed",
                                      "-XX:+UseCompressed",
                                      "-XX:ObjectAlignmentInBytes",
                                      "-XX:+UseCompactObjectHeaders",
                                      "-javaagent",
                                      "-agentlib",
                                      "-agentpath",
                                      "-Xbootclasspath",
                                      "--patch-module",
                                      "--upgrade-module-path",
                                      "--limit-modules",
                                      "--module-path",
                                      "--add-modules"};

std::string StampOf(const std::string& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) return absl::StrCat(path, " none\n");
  return absl::StrCat(path, " ", status.st_dev, " ", status.st_ino, " ", status.st_size, " ",
                      status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec, "\n");
}

}  // namespace

std::string ClassDataOption() {
  return absl::StrCat("-XX:VMOptionsFile=", kJarDir, "/", kVmOptionsFile);
}

std::string ClassDataOptionsFile() {
  return absl::StrCat("-XX:SharedArchiveFile=", kJarDir, "/", kClassArchive, "\n");
}

bool CanShareClassData(const pb::AgentSpec& agent) {
  const auto& options = agent.jvm_options();
  const auto hinders = [](const std::string& option) {
    return std::any_of(std::begin(kHindering), std::end(kHindering),
                       [&](const char* prefix) { return absl::StartsWith(option, prefix); });
  };
  const auto too_old = [](const pb::JavaHome& java) {
    return java.feature() < kFirstJavaWithArchives;
  };
  return std::find(options.begin(), options.end(), kCollector) != options.end() &&
         std::none_of(options.begin(), options.end(), hinders) &&
         std::none_of(agent.java_homes().begin(), agent.java_homes().end(), too_old);
}

absl::StatusOr<std::string> ClassDataIdentity(const std::string& java_home,
                                              absl::string_view jar_sha256) {
  ASSIGN_OR_RETURN(const std::string release,
                   ReadFile(absl::StrCat(java_home, "/release"), kMaxReleaseFileBytes));
  std::string identity = absl::StrCat(jar_sha256, "\n", release, "\n");
  for (const char* file :
       {"/bin/java", "/lib/modules", "/lib/server/libjvm.so", "/lib/server/classes.jsa"}) {
    absl::StrAppend(&identity, StampOf(absl::StrCat(java_home, file)));
  }
  for (const std::string& option : ClassDataDumpOptions(""))
    absl::StrAppend(&identity, option, "\n");
  return identity;
}

std::vector<std::string> ClassDataDumpOptions(const std::string& archive) {
  return DefaultJvmOptions(/*memory_bytes=*/0,
                           {absl::StrCat("-XX:ArchiveClassesAtExit=", archive)});
}

}  // namespace jenkins_agent
