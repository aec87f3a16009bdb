#include "driver/nomad/version.h"

#include <re2/re2.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace jenkins_agent::nomad {
namespace {

struct Version {
  std::vector<int64_t> segments;  // at least three
  size_t given = 0;               // segments that were written
  std::string prerelease;
};

// VersionRegexpRaw of go-version; with `semver` a prerelease needs its "-".
const RE2& Pattern(VersionRules rules) {
  static const RE2* const version = new RE2(
      R"(v?([0-9]+(?:\.[0-9]+)*?))"
      R"((?:-([0-9]+[0-9A-Za-z\-~]*(?:\.[0-9A-Za-z\-~]+)*)|(?:-?([A-Za-z\-~]+[0-9A-Za-z\-~]*(?:\.[0-9A-Za-z\-~]+)*)))?)"
      R"((?:\+(?:[0-9A-Za-z\-~]+(?:\.[0-9A-Za-z\-~]+)*))?)");
  static const RE2* const semver = new RE2(
      R"(v?([0-9]+(?:\.[0-9]+)*?))"
      R"((?:-([0-9]+[0-9A-Za-z\-~]*(?:\.[0-9A-Za-z\-~]+)*)|(?:-([A-Za-z\-~]+[0-9A-Za-z\-~]*(?:\.[0-9A-Za-z\-~]+)*)))?)"
      R"((?:\+(?:[0-9A-Za-z\-~]+(?:\.[0-9A-Za-z\-~]+)*))?)");
  return rules == VersionRules::kVersion ? *version : *semver;
}

std::optional<Version> Parse(absl::string_view text, VersionRules rules) {
  std::string numbers, numeric_prerelease, prerelease;
  if (!RE2::FullMatch(std::string(text), Pattern(rules), &numbers, &numeric_prerelease,
                      &prerelease)) {
    return std::nullopt;
  }
  Version version;
  for (const absl::string_view segment : absl::StrSplit(numbers, '.')) {
    int64_t value = 0;
    if (!absl::SimpleAtoi(segment, &value)) return std::nullopt;
    version.segments.push_back(value);
  }
  version.given = version.segments.size();
  while (version.segments.size() < 3) version.segments.push_back(0);
  version.prerelease = prerelease.empty() ? numeric_prerelease : prerelease;
  return version;
}

int CompareSegments(const Version& a, const Version& b) {
  for (size_t i = 0; i < std::max(a.segments.size(), b.segments.size()); ++i) {
    const int64_t left = i < a.segments.size() ? a.segments[i] : 0;
    const int64_t right = i < b.segments.size() ? b.segments[i] : 0;
    if (left != right) return left < right ? -1 : 1;
  }
  return 0;
}

// Numbers are less than words, and an absent part is less than any word.
int ComparePart(absl::string_view a, absl::string_view b) {
  if (a == b) return 0;
  int64_t left = 0, right = 0;
  const bool left_number = absl::SimpleAtoi(a, &left), right_number = absl::SimpleAtoi(b, &right);
  if (a.empty()) return right_number ? -1 : 1;
  if (b.empty()) return left_number ? 1 : -1;
  if (left_number != right_number) return left_number ? -1 : 1;
  if (!left_number) return a > b ? 1 : -1;
  return left > right ? 1 : -1;
}

int ComparePrerelease(absl::string_view a, absl::string_view b) {
  const std::vector<absl::string_view> left = absl::StrSplit(a, '.'),
                                       right = absl::StrSplit(b, '.');
  for (size_t i = 0; i < std::max(left.size(), right.size()); ++i) {
    const int order = ComparePart(i < left.size() ? left[i] : "", i < right.size() ? right[i] : "");
    if (order != 0) return order;
  }
  return 0;
}

int Compare(const Version& a, const Version& b) {
  if (const int order = CompareSegments(a, b); order != 0) return order;
  if (a.prerelease == b.prerelease) return 0;
  if (a.prerelease.empty()) return 1;
  if (b.prerelease.empty()) return -1;
  return ComparePrerelease(a.prerelease, b.prerelease);
}

// A version before a release meets only a constraint that names one of the same release.
bool PrereleaseAllowed(const Version& version, const Version& wanted) {
  if (version.prerelease.empty()) return true;
  return !wanted.prerelease.empty() && version.segments == wanted.segments;
}

// "~> 1.2.3": the last given segment may grow.
bool Pessimistic(const Version& version, const Version& wanted) {
  if (!PrereleaseAllowed(version, wanted)) return false;
  if (!wanted.prerelease.empty() && version.prerelease.empty()) return false;
  if (Compare(version, wanted) < 0) return false;
  if (wanted.segments.size() > version.segments.size()) return false;
  for (size_t i = 0; i + 1 < wanted.given; ++i) {
    if (version.segments[i] != wanted.segments[i]) return false;
  }
  return wanted.segments.back() <= version.segments[wanted.segments.size() - 1];
}

bool MeetsOne(const Version& version, absl::string_view constraint, VersionRules rules) {
  static const RE2* const parts = new RE2(R"(\s*(<=|>=|!=|~>|<|>|=)?\s*(\S+)\s*)");
  std::string operation, text;
  if (!RE2::FullMatch(std::string(constraint), *parts, &operation, &text)) return false;
  const bool semver = rules == VersionRules::kSemver;
  if (semver && operation == "~>") return false;
  const std::optional<Version> wanted = Parse(text, rules);
  if (!wanted) return false;
  if (operation == "~>") return Pessimistic(version, *wanted);
  const int order = Compare(version, *wanted);
  if (operation.empty() || operation == "=") return order == 0;
  if (operation == "!=") return order != 0;
  if (!semver && !PrereleaseAllowed(version, *wanted)) return false;
  if (operation == "<") return order < 0;
  if (operation == "<=") return order <= 0;
  if (operation == ">") return order > 0;
  return order >= 0;
}

}  // namespace

bool VersionMeets(absl::string_view version, absl::string_view constraint, VersionRules rules) {
  // The left side is read by the lenient rules for both operators (feasible.go, checkVersionMatch).
  const std::optional<Version> parsed = Parse(version, VersionRules::kVersion);
  if (!parsed) return false;
  for (const absl::string_view one : absl::StrSplit(constraint, ',')) {
    if (!MeetsOne(*parsed, one, rules)) return false;
  }
  return true;
}

}  // namespace jenkins_agent::nomad
