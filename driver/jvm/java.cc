#include "driver/jvm/java.h"

#include <glob.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <tuple>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr const char* kUsualPlaces[] = {"/usr/lib/jvm/*", "/opt/*"};

std::vector<std::string> Expand(const std::vector<std::string>& patterns) {
  std::vector<std::string> paths;
  for (const std::string& pattern : patterns) {
    glob_t found = {};
    if (::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found) == 0) {
      paths.insert(paths.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
    }
    ::globfree(&found);
  }
  return paths;
}

absl::StatusOr<std::string> RealPath(const std::string& path) {
  const std::unique_ptr<char, decltype(&::free)> real(::realpath(path.c_str(), nullptr), &::free);
  if (real == nullptr) return ErrnoStatus(path);
  return std::string(real.get());
}

// KEY="value" lines.
std::map<std::string, std::string> ParseRelease(absl::string_view text) {
  std::map<std::string, std::string> values;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(line, absl::MaxSplits('=', 1));
    std::string value = parts.second;
    value.erase(
        std::remove_if(value.begin(), value.end(), [](char c) { return c == '"' || c == '\r'; }),
        value.end());
    values[parts.first] = value;
  }
  return values;
}

// "17.0.15" -> {17, 0, 15}; "1.8.0_402" -> {8, 0, 402}.
std::vector<uint32_t> VersionNumbers(const std::string& version) {
  std::vector<uint32_t> numbers;
  for (absl::string_view part : absl::StrSplit(version, absl::ByAnyChar("._+-"))) {
    uint32_t number = 0;
    if (!absl::SimpleAtoi(part, &number)) break;
    numbers.push_back(number);
  }
  if (numbers.size() > 1 && numbers[0] == 1) numbers.erase(numbers.begin());
  return numbers;
}

bool Newer(const JavaInstall& one, const JavaInstall& other) {
  const std::vector<uint32_t> a = VersionNumbers(one.version), b = VersionNumbers(other.version);
  return std::tie(b, one.path) < std::tie(a, other.path);
}

}  // namespace

absl::StatusOr<JavaInstall> ReadJavaRelease(const std::string& path, absl::string_view release) {
  std::map<std::string, std::string> values = ParseRelease(release);
  JavaInstall java;
  java.path = path;
  java.version = values["JAVA_VERSION"];
  java.vendor = values["IMPLEMENTOR"];
  const std::vector<uint32_t> numbers = VersionNumbers(java.version);
  if (numbers.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(java.path, "/release: no readable JAVA_VERSION"));
  }
  java.feature = numbers[0];
  return java;
}

void SortNewestFirst(std::vector<JavaInstall>& javas) {
  std::sort(javas.begin(), javas.end(), Newer);
}

absl::StatusOr<JavaInstall> ReadJavaHome(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string real, RealPath(path));
  if (::access(absl::StrCat(real, "/bin/java").c_str(), X_OK) != 0) {
    return ErrnoStatus(absl::StrCat(real, "/bin/java"));
  }
  ASSIGN_OR_RETURN(const std::string text,
                   ReadFile(absl::StrCat(real, "/release"), kMaxReleaseBytes));
  return ReadJavaRelease(real, text);
}

absl::StatusOr<std::vector<JavaInstall>> FindJavaHomes(const std::vector<std::string>& patterns) {
  std::vector<JavaInstall> homes;
  for (const std::string& path :
       Expand(patterns.empty()
                  ? std::vector<std::string>(std::begin(kUsualPlaces), std::end(kUsualPlaces))
                  : patterns)) {
    absl::StatusOr<JavaInstall> java = ReadJavaHome(path);
    if (java.ok()) homes.push_back(*std::move(java));
  }
  SortNewestFirst(homes);
  homes.erase(
      std::unique(homes.begin(), homes.end(),
                  [](const JavaInstall& a, const JavaInstall& b) { return a.path == b.path; }),
      homes.end());
  return homes;
}

}  // namespace jenkins_agent
