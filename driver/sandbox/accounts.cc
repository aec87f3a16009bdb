#include "driver/sandbox/accounts.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace jenkins_agent {
namespace {

// Fields of passwd(5) and group(5): both start with name, password, number.
constexpr size_t kName = 0;
constexpr size_t kNumber = 2;
constexpr size_t kHome = 5;
constexpr size_t kPasswdFields = 7;

using Line = std::vector<std::string>;

std::vector<Line> Parse(absl::string_view text) {
  std::vector<Line> lines;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines.push_back(absl::StrSplit(line, ':'));
  }
  return lines;
}

std::string Print(const std::vector<Line>& lines) {
  std::string text;
  for (const Line& line : lines) absl::StrAppend(&text, absl::StrJoin(line, ":"), "\n");
  return text;
}

Line* FindNumber(std::vector<Line>& lines, uint32_t number) {
  for (Line& line : lines) {
    if (line.size() > kNumber && line[kNumber] == absl::StrCat(number)) return &line;
  }
  return nullptr;
}

std::string FreeName(const std::vector<Line>& lines, absl::string_view name, uint32_t number) {
  if (name.empty()) return absl::StrCat("task-", number);
  for (const Line& line : lines) {
    if (line[kName] == std::string(name)) return absl::StrCat("task-", number);
  }
  return std::string(name);
}

}  // namespace

std::string PasswdWithUser(absl::string_view passwd, absl::string_view name, uint32_t uid,
                           uint32_t gid, absl::string_view home) {
  std::vector<Line> lines = Parse(passwd);
  if (Line* line = FindNumber(lines, uid); line == nullptr) {
    lines.push_back({FreeName(lines, name, uid), "x", absl::StrCat(uid), absl::StrCat(gid), "",
                     std::string(home), "/bin/sh"});
  } else if (line->size() == kPasswdFields) {
    (*line)[kHome] = std::string(home);
  }
  return Print(lines);
}

std::string GroupWithGroup(absl::string_view group, absl::string_view name, uint32_t gid) {
  std::vector<Line> lines = Parse(group);
  if (FindNumber(lines, gid) == nullptr) {
    lines.push_back({FreeName(lines, name, gid), "x", absl::StrCat(gid), ""});
  }
  return Print(lines);
}

}  // namespace jenkins_agent
